"""`mlflow models serve` with a registered model: a real server gives the numbers of `predict`."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from empty_store import copied_store
from make_trial_request import train_kept_model

from d2l_study import cli
from d2l_study.data import FeatureBags
from d2l_study.learning import TeacherConfig
from d2l_study.study.commands.mlflow_ui import free_port

MUSK = FeatureBags(path="musk1", folds=5)
START_SECONDS = 120


@pytest.fixture
def registered(tmp_path, tmp_path_factory):
    """The address of a store with a teacher of MUSK1 as `musk@champion`, and the scores that `predict` writes."""
    torch.set_num_threads(1)
    root = tmp_path / "runs"
    root.mkdir()
    uri = copied_store(root, tmp_path_factory)
    train_kept_model(root, "ab" * 10, MUSK.resolved(), teacher=TeacherConfig(extractor="mlp", steps=20, eval_every=5))
    words = ["--root", str(root)]
    assert cli.main(["register", "--run", "abab", "--name", "musk", "--alias", "champion", *words]) == 0
    out = tmp_path / "scores.parquet"
    assert cli.main(["predict", "--run", "models:/musk@champion", "musk1", "--out", str(out), *words]) == 0
    return uri, pd.read_parquet(out)


def bags_as_rows():
    """MUSK1 as the rows that a server takes."""
    pool = MUSK.load_pool()
    return [[pool.names[bag], vector.tolist()]
            for bag, vector in zip(pool.bags.bag_of.tolist(), pool.instances[:], strict=True)]  # fmt: skip


def assert_same(found, expected):
    assert found["level"].tolist() == expected["level"].tolist() and found["bag"].tolist() == expected["bag"].tolist()
    np.testing.assert_allclose(found["logit"].astype(float), expected["logit"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["score"].astype(float), expected["score"], rtol=0, atol=1e-5)
    for name in ("index", "predicted"):
        assert found[name].astype("Int64").tolist() == expected[name].astype("Int64").tolist()


def test_a_loaded_model_gives_what_predict_gives(registered, monkeypatch):
    from mlflow.pyfunc import load_model

    uri, expected = registered
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    table = pd.DataFrame(bags_as_rows(), columns=["bag", "instance"])
    assert_same(load_model("models:/musk@champion").predict(table), expected)


@pytest.mark.soak
def test_a_server_gives_what_predict_gives(registered, tmp_path):
    uri, expected = registered
    port = free_port(0)
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/musk@champion", "--env-manager",
               "local", "-h", "127.0.0.1", "-p", str(port)]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # MLflow looks for uvicorn there
    with (tmp_path / "log").open("w+") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": uri, "PATH": path},
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_up(server, address, tmp_path / "log")
            split = {"columns": ["bag", "instance"], "data": bags_as_rows()}
            status, answer = post(address, {"dataframe_split": split})
            assert status == 200
            assert_same(pd.DataFrame(answer["predictions"]), expected)
            status, answer = post(address, {"dataframe_split": split, "params": {"level": "bag"}})
            assert {row["level"] for row in answer["predictions"]} == {"bag"} and answer["predictions"][0][
                "index"
            ] is None
            short = {"columns": ["instance"], "data": [[[0.5, 0.5]]]}
            status, answer = post(address, {"dataframe_split": short})
            assert status == 400 and "row 0 holds 2 numbers; this model takes a vector of 166" in json.dumps(answer)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def wait_until_up(server, address, log):
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/ping", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)


def post(address, content):
    """The status and the JSON of an answer."""
    request = urllib.request.Request(
        f"{address}/invocations", json.dumps(content).encode(), {"Content-Type": "application/json"}
    )
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
