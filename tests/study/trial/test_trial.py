"""One trial in the calling process: what is committed, what a failure leaves, what a checkpoint saves."""

import dataclasses
import io
import json
import types

import numpy as np
import pandas as pd
import pytest
from make_study import make_study
from make_trial_request import make_trial_request

from d2l_study.data import MnistBags
from d2l_study.errors import SlowStepsWarning, UserError
from d2l_study.learning import TeacherConfig, metrics
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.precision import check_precision, decided_precision
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial import trial as trial_module
from d2l_study.study.trial.trial import run_trial


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


def ledger_of(root):
    return StudyFolder(LocalStorage(root), "s").ledger


def comparable(record):
    """The parts of a committed row that do not tell the time."""
    timed = ("train_seconds", "eval_seconds", "committed_at")
    return {k: v for k, v in record["row"].items() if k not in timed}


def test_predictions_keep_the_labels_that_training_saw_beside_the_true_ones(tmp_path):
    noisy = make_trial_request(tmp_path, (0,))
    noisy.sections["data"] |= {"label_noise": 0.4, "val_bags": 40}
    run_trial(noisy)
    data = MnistBags(**noisy.sections["data"])
    bags = data.replicate(data.load_pool(), 0, noisy.base_seed)
    frame = pd.read_parquet(
        io.BytesIO(StudyFolder(LocalStorage(tmp_path), "s").ledger.read_file("ab" * 10, 0, "predictions.parquet"))
    )
    for split, part in (("val", bags.val), ("test", bags.test)):
        mine = frame[(frame["split"] == split) & (frame["level"] == "bag")]
        assert mine["seen_label"].tolist() == part.label.tolist()
        assert mine["label"].tolist() == part.true_label.tolist()
    assert (bags.val.label != bags.val.true_label).any()
    assert frame.loc[frame["level"] == "instance", "seen_label"].isna().all()


def test_a_trial_commits_rows_predictions_and_curves(tmp_path):
    reports = []
    assert run_trial(make_trial_request(tmp_path), lambda step, values: reports.append((step, sorted(values)))) == {
        0: "done", 1: "done",
    }  # fmt: skip
    assert reports == [(2, [0, 1]), (4, [0, 1]), (6, [0, 1])]
    ledger = ledger_of(tmp_path)
    row = ledger.read("ab" * 10, 1)["row"]
    frame = pd.read_parquet(io.BytesIO(ledger.read_file("ab" * 10, 1, "predictions.parquet")))
    assert set(frame["replicate"]) == {1}
    assert row["labels_used"] == 6 + 20  # of 6 training bags, and of the 20 by which the snapshot was chosen
    sizes = frame.groupby(["split", "level"], observed=True).size().to_dict()
    assert sizes == {("test", "bag"): 20, ("test", "instance"): 400, ("val", "bag"): 20}  # all digits
    for split, level, name in (("test", "bag", "bag"), ("test", "instance", "instance"), ("val", "bag", "val_bag")):
        part = frame[(frame["split"] == split) & (frame["level"] == level)]
        again = metrics.auc(part["label"].to_numpy(np.int64), part["logit"].to_numpy())
        assert row[f"{name}_auc"] == pytest.approx(again, abs=1e-12)  # anyone can recompute the table
    curve = json.loads(ledger.read_file("ab" * 10, 1, "curve.json"))
    assert [point["step"] for point in curve] == [2, 4, 6]
    assert ledger.read_config("ab" * 10)["sections"]["data"]["num_bags"] == 6


def test_float32_is_no_tf32_in_a_trial(tmp_path):
    """Whatever the process allowed before: PyTorch allows it in convolutions on a GPU."""
    import torch

    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = True
        run_trial(make_trial_request(tmp_path))
        assert [backend.allow_tf32 for backend in backends] == [False, False]
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed


@pytest.fixture
def probed(monkeypatch):
    """The probes of a session on nodes of which each finds the other format faster."""
    from d2l_study.learning import precision

    probes = []

    def probe(shape, device):
        probes.append((shape, device))
        return "bfloat16" if len(probes) % 2 else "float32"

    monkeypatch.setattr(precision, "faster_precision", probe)
    return probes


def test_the_first_trial_of_a_study_decides_its_precision_and_rows_say_which(tmp_path, probed):
    asked = dataclasses.replace(make_trial_request(tmp_path), resources=Resources(precision="auto").to_dict())
    assert run_trial(asked) == {0: "done", 1: "done"}
    assert probed == [((1, 28, 28), "cpu")]  # once, for all replicates
    other = dataclasses.replace(asked, config_id="cd" * 10, replicates=(0,))
    run_trial(other)  # another trial, on a node that would find otherwise; perhaps of a later command
    ledger = ledger_of(tmp_path)
    rows = [ledger.read(config, r)["row"] for config, r in (("ab" * 10, 0), ("ab" * 10, 1), ("cd" * 10, 0))]
    assert {row["precision"] for row in rows} == {"bfloat16"} and len(probed) == 1
    run_trial(dataclasses.replace(other, config_id="ef" * 10, study="another"))
    assert ledger.read("ef" * 10, 0)["row"]["precision"] == "float32" and len(probed) == 2


def test_a_decision_that_was_damaged_is_made_again_and_the_first_of_two_stays(tmp_path, probed):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    folder.storage.put("studies/s/precision.json", b'{"precision": "flo')
    assert decided_precision(folder, (1, 28, 28), "cpu") == "bfloat16"
    assert decided_precision(folder, (1, 28, 28), "cuda") == "bfloat16" and len(probed) == 1


def test_a_study_of_an_earlier_version_keeps_the_precision_of_its_first_run(tmp_path, probed):
    folder = make_study(tmp_path, replicates=1, num_bags=(50,), bag_sizes=(10,))
    assert decided_precision(folder, (1, 28, 28), "cpu") == "bfloat16"  # its rows are of another study
    folder.storage.delete("studies/made/precision.json")
    config = folder.plan()[0]["config_id"]
    row = folder.ledger.row(config, 0)
    folder.storage.delete(f"{folder.ledger.run_key(config, 0)}/commit.json")
    folder.ledger.commit(config, 0, {**row, "made_by": "made", "precision": "float32"}, {})
    assert decided_precision(folder, (1, 28, 28), "cpu") == "float32" and len(probed) == 1


def test_a_study_has_one_precision(tmp_path, probed):
    folder = make_study(tmp_path, replicates=1, num_bags=(50,), bag_sizes=(10,))
    check_precision(folder, "bfloat16")  # none of its runs are its own
    config = folder.plan()[0]["config_id"]
    row = folder.ledger.row(config, 0)
    folder.storage.delete(f"{folder.ledger.run_key(config, 0)}/commit.json")
    folder.ledger.commit(config, 0, {**row, "made_by": "made", "precision": "float32"}, {})
    check_precision(folder, "float32")
    check_precision(folder, "auto")
    with pytest.raises(UserError, match=r"resources.precision: bfloat16 .*'made' has computed in float32.*--study NEW"):
        check_precision(folder, "bfloat16")
    assert decided_precision(folder, (1, 28, 28), "cpu") == "float32" and not probed
    check_precision(StudyFolder(LocalStorage(tmp_path), "another"), "bfloat16")


def test_a_study_goes_on_in_the_precision_that_it_was_told_before_any_run_was_committed(tmp_path, probed, monkeypatch):
    """A checkpoint may be all that there is: the rest of its run would be in another format."""

    def stopped(data):
        raise MemoryError

    told = dataclasses.replace(make_trial_request(tmp_path), resources=Resources(precision="float32").to_dict())
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    folder.write("", {}, [])
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(trial_module, "_pool", stopped)
        run_trial(told)
    assert decided_precision(folder, (1, 28, 28), "cuda") == "float32" and not probed
    run_trial(dataclasses.replace(told, resources=Resources(precision="auto").to_dict()))
    assert ledger_of(tmp_path).row("ab" * 10, 0)["precision"] == "float32" and not probed


@pytest.mark.parametrize(("gpus", "stacked"), [(1.0, True), (0.25, False)])
def test_instances_that_a_trials_part_of_a_gpu_cannot_hold_are_not_stacked(tmp_path, monkeypatch, gpus, stacked):
    properties = types.SimpleNamespace(total_memory=4 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    pool = types.SimpleNamespace(name="slides", shape=(8,), instances=types.SimpleNamespace(nbytes=2 * 2**30))
    request = dataclasses.replace(
        make_trial_request(tmp_path), resources=Resources(gpus=gpus, precision="float32").to_dict()
    )
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    if stacked:
        assert trial_module._compute(request, pool, folder).packs
        return
    with pytest.warns(SlowStepsWarning, match=r"not stacked: the instances of slides take 2\.0 GiB.* has 1\.0 GiB"):
        assert not trial_module._compute(request, pool, folder).packs


def test_what_is_committed_is_not_trained_again(tmp_path):
    run_trial(make_trial_request(tmp_path, replicates=(0,)))
    before = ledger_of(tmp_path).read("ab" * 10, 0)
    reports = []
    run_trial(make_trial_request(tmp_path, replicates=(0, 1)), lambda step, values: reports.append(set(values)))
    assert reports == [{1}, {1}, {1}]
    assert ledger_of(tmp_path).read("ab" * 10, 0) == before


def test_alone_together_and_in_pieces_give_the_same_rows(tmp_path):
    run_trial(make_trial_request(tmp_path / "together", replicates=(0, 1, 2)))
    run_trial(make_trial_request(tmp_path / "apart", replicates=(2,)))
    run_trial(make_trial_request(tmp_path / "apart", replicates=(0, 1)))
    for replicate in range(3):
        one, other = (comparable(ledger_of(tmp_path / n).read("ab" * 10, replicate)) for n in ("together", "apart"))
        assert one == other


class Killed(BaseException):
    """Stands for a process that ends between two reports."""


def test_a_killed_trial_goes_on_from_its_checkpoint(tmp_path):
    run_trial(make_trial_request(tmp_path / "whole", lambda_adv=1.0))

    def die(step, values):
        if step >= 4:
            raise Killed

    interrupted = make_trial_request(tmp_path / "killed", checkpoint_every=2, lambda_adv=1.0)
    with pytest.raises(Killed):
        run_trial(interrupted, die)
    ledger = ledger_of(tmp_path / "killed")
    assert ledger.load_checkpoint("ab" * 10, 0) is not None and not ledger.has("ab" * 10, 0)
    steps = []
    run_trial(interrupted, lambda step, values: steps.append(step))
    assert steps == [6]  # nothing before the checkpoint is done again
    for replicate in (0, 1):
        one, other = (comparable(ledger_of(tmp_path / n).read("ab" * 10, replicate)) for n in ("whole", "killed"))
        assert one == other
        assert ledger.load_checkpoint("ab" * 10, replicate) is None


def test_a_loss_that_is_not_finite_is_a_result_with_its_cause(tmp_path):
    assert run_trial(make_trial_request(tmp_path, learning_rate=1e30)) == {0: "failed", 1: "failed"}
    record = ledger_of(tmp_path).read("ab" * 10, 0)
    assert "step" in record["row"]["cause"] and "bag_auc" not in record["row"]
    assert "predictions.parquet" not in record["files"]


def test_an_exception_is_kept_and_not_raised(tmp_path, monkeypatch):
    def broken(data):
        raise ZeroDivisionError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "_pool", broken)
        assert run_trial(make_trial_request(tmp_path)) == {0: "failed", 1: "failed"}
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    failure = folder.failure("ab" * 10, 0)
    assert failure["cause"] == "ZeroDivisionError: made to fail" and "Traceback" in failure["log"]
    run_trial(make_trial_request(tmp_path))  # the cause is gone: the run succeeds and its failure with it
    assert folder.failure("ab" * 10, 0) is None


def test_out_of_memory_is_raised_for_another_try(tmp_path, monkeypatch):
    def full(data):
        raise RuntimeError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr(trial_module, "_pool", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_trial(make_trial_request(tmp_path))


def test_other_data_than_the_study_planned_with_is_refused(tmp_path):
    run_trial(dataclasses.replace(make_trial_request(tmp_path), data_checksum="another"))
    cause = StudyFolder(LocalStorage(tmp_path), "s").failure("ab" * 10, 1)["cause"]
    assert "checksum" in cause and "another" in cause


def test_weights_are_kept_where_asked_for_and_give_the_predictions_again(tmp_path):
    from safetensors.torch import load

    from d2l_study.learning.prediction import Compute, Normalise, predict_bags
    from d2l_study.learning.teacher_model import teacher_model

    asked = make_trial_request(tmp_path, replicates=(0,), keep_weights="all")
    run_trial(asked)
    ledger = ledger_of(tmp_path)
    params = load(ledger.read_file("ab" * 10, 0, "weights.safetensors"))
    data = MnistBags(**asked.sections["data"])
    replicate = data.replicate(data.load_pool(), 0, 5)
    model = teacher_model(TeacherConfig(**asked.sections["teacher"]), replicate)
    (logit,) = predict_bags(
        model, params, replicate.pool, [replicate.test], Normalise.of(replicate, Compute()), Compute()
    )
    frame = pd.read_parquet(io.BytesIO(ledger.read_file("ab" * 10, 0, "predictions.parquet")))
    kept = frame[(frame["split"] == "test") & (frame["level"] == "bag")]["logit"].to_numpy()
    np.testing.assert_allclose(logit, kept, atol=1e-5)
