"""`reproduce`: a trial trained again from its record, and compared."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from make_trial_request import make_trial_request

from d2l_study import cli
from d2l_study.study.commands import recorded_trial
from d2l_study.study.commands import reproduce as reproduce_module
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import PREDICTIONS
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.tune.machine import Machines, Node

ID = "ab" * 10


def test_reproduce_trains_again_and_compares(tmp_path, capsys):
    run_trial(make_trial_request(tmp_path, (0, 1)))
    ledger = Ledger(LocalStorage(tmp_path))
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("identical, predictions too") == 2
    record = ledger.read(ID, 1)
    record["row"]["bag_auc"] += 0.25
    ledger.storage.delete(f"{ledger.run_key(ID, 1)}/commit.json")
    ledger.commit(ID, 1, record["row"], {})
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert "r000: identical" in out and "r001: metrics differ by at most 0.25" in out and "bag_auc:" in out
    assert cli.main(["reproduce", "abab", "--replicate", "5", "--root", str(tmp_path)]) == 2
    assert "replicate 5 is not committed" in capsys.readouterr().err


def reproduce_as(tmp_path, monkeypatch, row, files):
    """Exit code of `reproduce` where training again gives this row and these files."""
    monkeypatch.setattr(reproduce_module, "compute_runs", lambda *given: iter([(0, row, files)]))
    return cli.main(["reproduce", "abab", "--root", str(tmp_path)])


def changed_record(root, replicate=0, **values):
    """Some values of a committed row are others."""
    ledger = Ledger(LocalStorage(root))
    record = ledger.read(ID, replicate)
    ledger.storage.delete(f"{ledger.run_key(ID, replicate)}/commit.json")
    ledger.commit(ID, replicate, record["row"] | values, {})


def test_a_difference_of_rounding_is_none(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))
    ledger = Ledger(LocalStorage(tmp_path))
    row = ledger.row(ID, 0)
    for metric, logit, said, code in (
        (5e-9, 0, "equal within rounding: metrics differ by at most 5e-09, logits by 0", 0),
        (5e-9, 5e-6, "equal within rounding: metrics differ by at most 5e-09, logits by 5e-06", 0),
        (0, 5e-6, "equal within rounding: identical, logits by 5e-06", 0),
        (2e-6, 0, "metrics differ by at most 2e-06, logits by 0", 1),
        (0, 2e-5, "identical, logits by 2e-05", 1),
    ):
        monkeypatch.setattr(reproduce_module, "_logit_difference", lambda *given, logit=logit: logit)
        assert reproduce_as(tmp_path, monkeypatch, row | {"bag_auc": row["bag_auc"] - metric}, {}) == code
        out = capsys.readouterr().out
        assert f"r000: {said}\n" in out and ("bag_auc:" in out) == (metric == 2e-6)


def on_a_machine(monkeypatch, gpus, unusable=""):
    monkeypatch.setattr(recorded_trial, "this_machine", lambda: Machines((Node(8, gpus),), unusable))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)


def test_a_run_of_a_gpu_is_reproduced_on_one(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))
    changed_record(tmp_path, device="cuda")
    given = []

    def compute(request, *others):
        given.append(request.resources)
        return iter([(0, Ledger(LocalStorage(tmp_path)).row(ID, 0), {})])

    monkeypatch.setattr(reproduce_module, "compute_runs", compute)
    on_a_machine(monkeypatch, 1)
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 0
    resources = Resources(**given.pop())
    assert (resources.kind, resources.packs, resources.checkpoint_every) == ("cuda", True, None)
    assert "  computes on the GPU\n" in capsys.readouterr().out
    on_a_machine(monkeypatch, 1, "1 GPU found, but it is old")
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 0
    assert given.pop()["gpus"] == 0
    said = capsys.readouterr().out
    assert "  the trial was for a GPU, and computes on the processor: 1 GPU found, but it is old\n" in said
    changed_record(tmp_path, device="cpu")
    on_a_machine(monkeypatch, 1)
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 0
    assert given.pop()["gpus"] == 0 and "GPU" not in capsys.readouterr().out


def test_the_other_device_and_way_stand_beside_the_difference(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))
    bag_auc = Ledger(LocalStorage(tmp_path)).row(ID, 0)["bag_auc"]
    changed_record(tmp_path, device="cuda", bag_auc=bag_auc + 0.25)
    on_a_machine(monkeypatch, 0)
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "computes on the processor: no GPU is found here\n" in said
    assert "r000: metrics differ by at most 0.25" in said
    assert " (cuda then, cpu now; stacked then, by turns now)\n    bag_auc" in said
    changed_record(tmp_path, device="cpu")
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 1
    assert "then" not in capsys.readouterr().out.split("by at most 0.25")[1].splitlines()[0]


def test_a_gpu_that_fails_is_said_in_a_line(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))

    def fail(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(reproduce_module, "compute_runs", fail)
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(
        "error: the GPU failed: CUDA out of memory. Tried to allocate 2 GiB; with CUDA_VISIBLE_DEVICES= before it the "
    )


def test_a_run_that_fails_now_is_different_and_its_cause_is_said(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))
    capsys.readouterr()
    row = {"status": "failed", "cause": "the training loss is nan"}
    assert reproduce_as(tmp_path, monkeypatch, row, {"curve.json": b"[]"}) == 1
    assert "  r000: done then, failed now: the training loss is nan\n" in capsys.readouterr().out


def test_a_run_that_failed_and_is_done_now_is_different_too(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, (0,)))
    ledger = Ledger(LocalStorage(tmp_path))
    row = ledger.row(ID, 0)
    ledger.storage.delete(f"{ledger.run_key(ID, 0)}/commit.json")
    ledger.commit(ID, 0, {**row, "status": "failed", "cause": "lost"}, {})
    capsys.readouterr()
    assert reproduce_as(tmp_path, monkeypatch, row, {}) == 1
    assert "  r000: failed then: lost, done now\n" in capsys.readouterr().out


@pytest.mark.parametrize(("then", "now", "expected"), [
    ([1.0, 2.0], [1.0, 2.5], 0.5), ([1.0, np.nan], [1.0, np.nan], 0.0), ([np.inf], [np.inf], 0.0),
    ([1.0, np.nan], [1.0, 2.0], np.inf), ([1.0], [1.0, 2.0], np.inf), ([1.0], None, np.inf),
])  # fmt: skip
def test_logits_differ_where_only_one_is_a_number(tmp_path, then, now, expected):
    ledger = Ledger(LocalStorage(tmp_path))
    ledger.commit(ID, 0, {"status": "failed"}, {PREDICTIONS: logits_file(then)})
    files = {} if now is None else {PREDICTIONS: logits_file(now)}
    assert reproduce_module._logit_difference(ledger, ID, 0, files) == expected


def logits_file(logit):
    buffer = io.BytesIO()
    pd.DataFrame({"logit": logit}).to_parquet(buffer)
    return buffer.getvalue()
