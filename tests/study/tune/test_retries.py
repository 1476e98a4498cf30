"""What is tried again after a trial was lost, and how often. Failures that would come again are in test_trial."""

import dataclasses

import pytest
from make_trial_request import make_trial_request

from d2l_study.errors import StorageError, UnreadableError
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial import trial as trial_module
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.tune.retries import DRIVER, MEMORY, STORAGE, WORKER, LostTrial, lost_trial, retry


@pytest.mark.parametrize(
    ("log", "kind", "words"),
    [
        ("ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task", WORKER, "process"),
        ("ray.exceptions.ActorDiedError: The actor died because its node has died.\nnode died", WORKER, "node"),
        ("ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory", MEMORY, "memory"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", MEMORY, "memory"),
        ("ray::ImplicitFunc.train()\nMemoryError: no", MEMORY, "memory"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", MEMORY, "memory"),
        ("RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED", MEMORY, "memory"),
        (
            "  File x, in step\n    raise CUDA error\ntorch.AcceleratorError: CUDA error: an illegal memory access was "
            "encountered\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.",
            WORKER,
            "the GPU failed: torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        ),
        ("x\nd2l_study.errors.StorageError: [Errno 28] No space left on device: '/r/x'", STORAGE, "No space left"),
        ("x\nd2l_study.errors.UnreadableError: [Errno None] no answer: 's3://b/x'", STORAGE, "no answer"),
        (
            "ray.exceptions.ActorUnavailableError: The actor 78 is unavailable: The actor is temporarily unavailable: "
            "RpcError: RPC error: Socket closed rpc_code: 14. The task may or may not have been executed",
            WORKER,
            "the connection to the worker or its node was lost",
        ),
        (
            "The actor died unexpectedly before finishing this task.\n\tclass_name: ImplicitFunc\nThe actor is dead "
            "because its owner has died. Owner worker exit type: SYSTEM_ERROR Worker exit detail: Owner's node has "
            "crashed.",
            DRIVER,
            "Ray's node on this machine was lost",
        ),
        ("", WORKER, "lost"),
    ],
)
def test_the_log_says_why_a_trial_was_lost(log, kind, words):
    found = lost_trial(log)
    assert found.kind == kind and words in found.cause and "\n" not in found.cause


def test_a_storage_error_is_named_without_number_and_place():
    log = "RayTaskError\nd2l_study.errors.StorageError: [Errno 28] No space left on device: '/r/x'"
    assert lost_trial(log).cause == "No space left on device"


def lost(tmp_path, replicates, retries, kinds):
    """The pieces that are run after each loss, following the first piece, and the folder."""
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    request = dataclasses.replace(
        make_trial_request(tmp_path, replicates), resources=Resources(retries=retries).to_dict()
    )
    pieces = []
    for kind in kinds:
        again = retry((request,), LostTrial(kind, "gone", "log"), folder)
        pieces.append([(piece.attempt, piece.replicates) for (piece,) in again])
        if again:
            (request,) = again[0]
    return pieces, folder


def test_a_lost_worker_is_tried_again_as_often_as_the_space_says(tmp_path):
    pieces, folder = lost(tmp_path, (0, 1), 2, [WORKER] * 3)
    assert pieces == [[(2, (0, 1))], [(3, (0, 1))], []]
    assert [a["attempt"] for a in folder.lost_attempts("ab" * 10, 1)] == [1, 2, 3]
    assert folder.failure("ab" * 10, 1)["cause"] == "gone (3 attempts)"


def test_without_retries_the_first_loss_is_a_failure(tmp_path):
    pieces, folder = lost(tmp_path, (0,), 0, [WORKER])
    assert pieces == [[]] and folder.failure("ab" * 10, 0)["cause"] == "gone"


def test_out_of_memory_halves_the_replicates(tmp_path):
    pieces, _ = lost(tmp_path, (0, 1, 2, 3, 4), 3, [MEMORY, MEMORY, WORKER])
    assert pieces == [[(2, (0, 1, 2)), (2, (3, 4))], [(3, (0, 1)), (3, (2,))], [(4, (0, 1))]]


def test_out_of_memory_halves_the_stacks_and_at_last_names_the_key(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    request = dataclasses.replace(
        make_trial_request(tmp_path, (0, 1)), resources=Resources(retries=2, gpus=0.25).to_dict()
    )
    (request,) = retry((request,), LostTrial(WORKER, "gone", "log"), folder)[0]
    assert request.halvings == 0
    (request,) = retry((request,), LostTrial(MEMORY, "no memory", "log"), folder)[0]
    assert request.halvings == 1
    assert retry((request,), LostTrial(MEMORY, "no memory", "log"), folder) == []
    assert folder.failure("ab" * 10, 0)["cause"] == (
        "no memory (3 attempts; a smaller resources.pack has fewer runs in memory together)"
    )


def test_what_was_committed_before_the_loss_is_not_run_again(tmp_path):
    run_trial(make_trial_request(tmp_path, (0,)))
    pieces, folder = lost(tmp_path, (0, 1), 1, [WORKER])
    assert pieces == [[(2, (1,))]] and folder.lost_attempts("ab" * 10, 0) == []


@pytest.mark.parametrize("error", [MemoryError("no"), RuntimeError("CUDA out of memory"), StorageError(28, "full"),
                                   RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
                                   RuntimeError("CUDA error: unspecified launch failure"),
                                   UnreadableError(None, "no answer", "s3://b/x")])  # fmt: skip
def test_memory_storage_and_the_gpu_are_no_failures_of_the_run(error, tmp_path, monkeypatch):
    def broken(data):
        raise error

    monkeypatch.setattr(trial_module, "_pool", broken)
    with pytest.raises(type(error)):
        run_trial(make_trial_request(tmp_path, (0,)))
    assert StudyFolder(LocalStorage(tmp_path), "s").failure("ab" * 10, 0) is None


def test_a_root_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        LocalStorage(tmp_path).put("a/b", b"x")
    assert list((tmp_path / "a").iterdir()) == []
