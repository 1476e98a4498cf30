"""Runs of several configurations in one trial: which share one, and that each comes out as if trained alone."""

import dataclasses
import io
import time

import numpy as np
import pandas as pd
import pytest
from make_trial_request import make_trial_request

from d2l_study.data import MnistBags
from d2l_study.study.ledger.claims import Claims
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial import trial as trial_module
from d2l_study.study.trial.packed_trials import MOST_RUNS, packed_trials
from d2l_study.study.trial.trial import run_packed_trial, run_trial

PACKED = Resources(pack=8, checkpoint_every=2)


def make(root, name, replicates=(0, 1), bags=6, **keys):
    request = make_trial_request(root, replicates, **keys)
    data = dataclasses.replace(MnistBags(**request.sections["data"]), num_bags=bags, val_bags=bags + 4)
    return dataclasses.replace(
        request, config_id=name * 20, label=name, sections={**request.sections, "data": data.to_dict()},
        resources=PACKED.to_dict(),
    )  # fmt: skip


def labels(trials):
    return ["".join(request.label for request in trial) for trial in trials]


# ---- which requests share a trial
def test_configurations_that_differ_in_numbers_share_a_trial_where_the_first_of_them_stood(tmp_path):
    first, second = make(tmp_path, "b", lambda_adv=0.5), make(tmp_path, "c", lambda_adv=1.0, epsilon=2.0, bags=8)
    requests = [make(tmp_path, "a"), first, make(tmp_path, "d", learning_rate=1e-3), second]
    assert labels(packed_trials(requests, Resources(pack=100), 1)) == ["ad", "bc"]


@pytest.mark.parametrize(
    "keys", [{"lambda_adv": 1.0}, {"steps": 8}, {"eval_every": 3}, {"feature_width": 8}, {"batch_bags": 2}]
)
def test_steps_of_another_form_are_a_trial_of_their_own(tmp_path, keys):
    requests = [make(tmp_path, "a"), make(tmp_path, "b", **keys)]
    assert labels(packed_trials(requests, Resources(pack=100), 1)) == ["a", "b"]


def test_other_bags_stages_and_seeds_are_trials_of_their_own(tmp_path):
    first = make(tmp_path, "a")
    larger = dataclasses.replace(make(tmp_path, "b"), sections={
        **first.sections, "data": first.sections["data"] | {"mean_bag_size": 4.0},
    })  # fmt: skip
    oracle = dataclasses.replace(make(tmp_path, "c"), stage="oracle")
    seeded = dataclasses.replace(make(tmp_path, "d"), base_seed=6)
    matched = dataclasses.replace(make(tmp_path, "e"), stage="matched")
    found = packed_trials([first, larger, oracle, seeded, matched], Resources(pack=100), 1)
    assert labels(found) == ["ae", "b", "c", "d"]


def test_trials_stay_alone_on_a_cpu_and_by_turns_unless_a_pack_is_asked_for(tmp_path):
    requests = [make(tmp_path, "a"), make(tmp_path, "b", lambda_ent=0.0)]
    for resources, count in ((Resources(), 2), (Resources(gpus=1, pack=1), 2), (Resources(gpus=1), 1), (PACKED, 1)):
        assert len(packed_trials(requests, resources, 1)) == count


def test_a_trial_holds_so_many_runs_and_there_are_as_many_as_run_side_by_side(tmp_path):
    requests = [make(tmp_path, name, replicates=range(20)) for name in "abcdefghijklmnopqrstu"]
    assert MOST_RUNS == 280
    assert labels(packed_trials(requests, Resources(gpus=1), 1)) == ["abcdefghijklmn", "opqrstu"]
    for places in range(1, 22):
        found = packed_trials(requests, Resources(gpus=1), places)
        assert len(found) >= places and "".join(labels(found)) == "abcdefghijklmnopqrstu"
    for fills, gpus, expected in (
        (1, 1, ["a", "b", "c"]),
        (40, 1, ["ab", "c"]),
        (60, 1, ["abc"]),
        (60, 3, ["a", "b", "c"]),
    ):
        found = packed_trials(requests[:3], Resources(gpus=0.25), 4, lambda _, fills=fills: fills, gpus)
        assert labels(found) == expected  # no place stays empty, but for what fills a GPU
    assert labels(packed_trials(requests[:5], Resources(pack=40), 1)) == ["ab", "cd", "e"]
    assert labels(packed_trials(requests[:2], PACKED, 1)) == ["a", "b"]  # more replicates than a pack stay together


# ---- as if each was trained alone
def ledger_of(root):
    return StudyFolder(LocalStorage(root), "s").ledger


def trio(root, **keys):
    return [
        make(root, "a", lambda_adv=0.5, **keys),
        make(root, "b", lambda_adv=1.0, replicates=(0, 1, 2), bags=8, **keys),
        make(root, "c", lambda_adv=1.0, learning_rate=1e-3, **keys),
    ]


def science(root, request):
    """The rows of a request without what tells of the time, and the logits of its predictions."""
    ledger, found = ledger_of(root), {}
    for replicate in request.replicates:
        record = ledger.read(request.config_id, replicate)
        row = {k: v for k, v in record["row"].items() if not k.endswith("seconds") and k != "committed_at"}
        files = {name: ledger.read_file(request.config_id, replicate, name) for name in record["files"]}
        found[replicate] = row, files
    return found


def assert_alike(root, other, requests):
    for request in requests:
        mine, alone = science(root, request), science(other, request)
        for replicate in request.replicates:
            (row, files), (expected, their_files) = mine[replicate], alone[replicate]
            assert row.keys() == expected.keys() and files.keys() == their_files.keys()
            for name, value in expected.items():
                if isinstance(value, float):
                    np.testing.assert_allclose(row[name], value, atol=2e-4, err_msg=name)
                else:
                    assert row[name] == value, name
            if "predictions.parquet" in files:
                tables = [pd.read_parquet(io.BytesIO(f["predictions.parquet"])) for f in (files, their_files)]
                pd.testing.assert_frame_equal(*tables, rtol=1e-3, atol=1e-4)


def test_rows_files_and_reports_of_each_are_those_of_its_own_training(tmp_path):
    reports, ended = [], []
    requests = trio(tmp_path / "packed", keep_weights="all")
    statuses = run_packed_trial(requests, lambda *point: reports.append(point), ended.append)
    assert statuses == [{0: "done", 1: "done"}, {0: "done", 1: "done", 2: "done"}, {0: "done", 1: "done"}]
    assert ended == [0, 1, 2]
    for number, request in enumerate(trio(tmp_path / "alone", keep_weights="all")):
        own = []
        run_trial(request, lambda step, values, own=own: own.append((step, values)))
        mine = [(step, values) for at, step, values in reports if at == number]
        assert [(step, sorted(values)) for step, values in mine] == [(step, sorted(values)) for step, values in own]
        for (_, values), (_, expected) in zip(mine, own, strict=True):
            for replicate in expected:
                assert values[replicate] == pytest.approx(expected[replicate], abs=2e-4)
    assert_alike(tmp_path / "packed", tmp_path / "alone", requests)


def test_a_run_that_diverges_takes_no_other_with_it(tmp_path):
    for root in ("packed", "alone"):
        requests = [*trio(tmp_path / root), make(tmp_path / root, "d", lambda_adv=1.0, learning_rate=1e30)]
        if root == "packed":
            assert run_packed_trial(requests)[3] == {0: "failed", 1: "failed"}
        else:
            assert [run_trial(request) for request in requests][3] == {0: "failed", 1: "failed"}
    assert_alike(tmp_path / "packed", tmp_path / "alone", requests)


def test_a_killed_packed_trial_goes_on_from_the_checkpoints_of_each_run(tmp_path):
    def die(number, step, values):
        if step == 4:
            raise SystemExit  # no exception of the training's own

    requests = trio(tmp_path / "killed")
    with pytest.raises(SystemExit):
        run_packed_trial(requests, die)
    ledger = ledger_of(tmp_path / "killed")
    assert all(ledger.has_checkpoint(r.config_id, replicate) for r in requests for replicate in r.replicates)
    steps = []
    run_packed_trial(requests, lambda number, step, values: steps.append((number, step)))
    assert steps == [(0, 6), (1, 6), (2, 6)]
    run_packed_trial(trio(tmp_path / "whole"))
    assert_alike(tmp_path / "killed", tmp_path / "whole", requests)
    assert not any(ledger.has_checkpoint(r.config_id, replicate) for r in requests for replicate in r.replicates)


def test_what_is_committed_already_is_not_trained_again(tmp_path):
    requests = trio(tmp_path)
    run_trial(dataclasses.replace(requests[1], replicates=(1,)))
    run_trial(requests[0])
    reports = []
    run_packed_trial(requests, lambda number, step, values: reports.append((number, sorted(values))))
    assert reports == [(1, [0, 2]), (2, [0, 1])] * 3


# ---- exceptions
def test_an_exception_of_the_joint_training_makes_each_be_trained_alone(tmp_path, monkeypatch):
    """One of them fails alone as well: only its runs are failures, with its own cause."""
    fit = trial_module.FIT_FUNCTIONS["teacher"]

    def broken(*arguments):
        raise ZeroDivisionError("made to fail together")

    def fit_alone(request, *arguments):
        if request.label == "b":
            raise ZeroDivisionError("made to fail alone")
        return fit(request, *arguments)

    monkeypatch.setattr(trial_module, "fit_packed", broken)
    monkeypatch.setitem(trial_module.FIT_FUNCTIONS, "teacher", fit_alone)
    requests, ended = trio(tmp_path), []
    statuses = run_packed_trial(requests, committed=ended.append)
    assert statuses == [{0: "done", 1: "done"}, dict.fromkeys(range(3), "failed"), {0: "done", 1: "done"}]
    assert ended == [0, 2]
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    assert folder.failure(requests[0].config_id, 0) is None
    assert folder.failure(requests[1].config_id, 2)["cause"] == "ZeroDivisionError: made to fail alone"


def test_out_of_memory_of_the_joint_training_is_raised_for_smaller_trials(tmp_path, monkeypatch):
    def full(*arguments):
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(trial_module, "fit_packed", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_packed_trial(trio(tmp_path))


def test_runs_that_another_study_trains_are_waited_for_and_the_others_trained_meanwhile(tmp_path, monkeypatch):
    requests, reports = trio(tmp_path), []
    ledger = ledger_of(tmp_path)
    with Claims(ledger, "another") as claims:
        assert claims.take(requests[1].config_id, (0,)) == [0]
        begun = time.monotonic()

        def end(seconds):
            assert sorted({number for number, _ in reports}) == [0, 1, 2] and time.monotonic() - begun < 60
            claims.__exit__()

        monkeypatch.setattr(trial_module.time, "sleep", end)
        statuses = run_packed_trial(requests, lambda number, step, values: reports.append((number, sorted(values))))
    assert all(status == "done" for own in statuses for status in own.values())
    assert reports[:3] == [(0, [0, 1]), (1, [1, 2]), (2, [0, 1])] and reports[-1] == (1, [0])
