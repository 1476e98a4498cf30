"""`--device` of the commands that score: which device each word means, what is said, and that scores are asked of it.

No GPU is needed: PyTorch starts CUDA before the first tensor goes there, which a test sees.
"""

import re

import numpy as np
import pytest
import torch

from d2l_study.cli import main
from d2l_study.device_errors import gpu_errors_in_a_line
from d2l_study.errors import UserError
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.model_folder import ModelRecord, write_model_folder
from d2l_study.learning.prediction import Compute
from d2l_study.models import MilModel
from d2l_study.study.commands import scoring_device
from d2l_study.study.commands.scoring_device import scoring_compute, show_scoring_device
from d2l_study.study.tune.machine import Machines, Node

OLD = "2 GPUs found, but this PyTorch is built without CUDA"


@pytest.fixture
def machine(monkeypatch):
    """Lets this machine be another: (GPUs, why PyTorch cannot use them, whether it starts CUDA)."""

    def of(gpus, unusable="", starts=True):
        monkeypatch.setattr(scoring_device, "this_machine", lambda: Machines((Node(8, gpus),), unusable))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: starts)

    return of


@pytest.mark.parametrize("word", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "CPU", "cuda:1000", "cuda:0 "])
def test_another_word_is_refused(word):
    with pytest.raises(UserError, match=re.escape(f"--device {word!r} is not allowed; expected auto, cpu, cuda")):
        scoring_compute(word)


@pytest.mark.parametrize(
    ("gpus", "unusable", "starts", "said"),
    [(0, "", False, "no GPU is found here"), (2, OLD, False, OLD), (2, "", False, "PyTorch cannot start CUDA")],
)
def test_without_a_usable_gpu_the_processor_scores(machine, capsys, gpus, unusable, starts, said):
    machine(gpus, unusable, starts)
    assert scoring_compute("auto") == scoring_compute("cpu") == Compute()
    with pytest.raises(UserError, match=f"--device cuda: .*{said}; expected auto or cpu"):
        scoring_compute("cuda")
    show_scoring_device(Compute())
    out = capsys.readouterr().out
    assert (out == "") == (gpus == 0) and (not unusable or f"the processor: {OLD}" in out)


def test_a_gpu_is_taken_by_itself_and_left_alone_where_that_is_asked_for(machine, capsys):
    machine(2)
    torch.backends.cudnn.allow_tf32 = True
    assert scoring_compute("auto") == Compute("cuda") and not torch.backends.cudnn.allow_tf32
    assert scoring_compute("cuda:1") == Compute("cuda:1")
    with pytest.raises(UserError, match="--device cuda:2: 2 GPUs found here, numbered from 0"):
        scoring_compute("cuda:2")
    show_scoring_device(scoring_compute("auto"))
    assert capsys.readouterr().out == "device:   cuda, one of 2 GPUs (--device cpu for the processor)\n"
    show_scoring_device(scoring_compute("cpu"))
    assert capsys.readouterr().out == "device:   the processor: 2 GPUs found, and not used\n"


def test_a_gpu_without_kernels_scores_nothing_and_another_one_does(monkeypatch):
    old = "2 GPUs found, but this PyTorch has no kernels for compute capability 6.1 (it has for 7.5)"
    machines = Machines((Node(8, 2),), f"{old}, as one of them has", ("", old))
    monkeypatch.setattr(scoring_device, "this_machine", lambda: machines)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert scoring_compute("auto") == Compute("cuda") and scoring_compute("cuda:0") == Compute("cuda:0")
    with pytest.raises(UserError, match=re.escape(f"--device cuda:1: {old}; expected auto or cpu")):
        scoring_compute("cuda:1")


# ---- the commands
def model_folder(folder, shape, **network):
    model = MilModel(shape, feature_width=16, attention_width=8, **network)
    dataset = "mnist" if len(shape) == 3 else "features"
    card = ModelCard(
        "teacher", {"data": {"dataset": dataset}}, (0.1,) * shape[0], (0.3,) * shape[0], "s", "ab" * 10, 0, 0.0
    )
    stored = StoredModel(model, model.init(np.random.default_rng(0)), card)
    folder.mkdir()
    write_model_folder(folder, stored, ModelRecord(), "page", {})
    return folder


@pytest.fixture
def patches(tmp_path):
    np.save(tmp_path / "digits.npy", np.random.default_rng(1).integers(0, 256, (6, 1, 28, 28), dtype=np.uint8))
    return model_folder(tmp_path / "patches", (1, 28, 28)), tmp_path / "digits.npy"


@pytest.fixture
def vectors(tmp_path):
    np.save(tmp_path / "slide.npy", np.random.default_rng(1).normal(size=(6, 5)).astype(np.float32))
    return model_folder(tmp_path / "vectors", (5,), extractor="mlp"), tmp_path / "slide.npy"


class AskedForCuda(Exception):
    """PyTorch was about to start CUDA. What it says without a GPU depends on how it was built."""


def start_cuda():
    raise AskedForCuda


@pytest.mark.parametrize("kind", ["patches", "vectors"])
@pytest.mark.parametrize("command", ["label", "predict", "evaluate"])
def test_scores_are_asked_of_the_device(request, machine, monkeypatch, tmp_path, capsys, command, kind):
    model, data = request.getfixturevalue(kind)
    out = ["--out", tmp_path / ("scores.csv" if command == "predict" else "out")]
    given = {"label": [data, *out], "predict": [data, *out], "evaluate": ["--data", "mnist"]}[command]
    words = [command, "--run", *map(str, [model, *given])]
    if command != "evaluate":
        assert main(words) == 0
        assert "device:" not in capsys.readouterr().out
    machine(1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", start_cuda)
    with pytest.raises(AskedForCuda):
        main(words)
    assert main([*words, "--device", "cuda:1"]) == 2
    assert "--device cuda:1: 1 GPU found here, numbered from 0" in capsys.readouterr().err


FULL = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 23 GiB of which 12 MiB is free. "
    "Including non-PyTorch memory, this process has 400.00 MiB memory in use."
)


@pytest.mark.parametrize("command", ["label", "predict", "evaluate"])
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (torch.OutOfMemoryError(FULL), "CUDA out of memory. Tried to allocate 20.00 MiB"),
        (
            torch.AcceleratorError("CUDA error: no kernel image\nCUDA kernel errors might"),
            "CUDA error: no kernel image",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"), "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    ],
)
def test_a_gpu_that_fails_is_said_in_a_line(machine, monkeypatch, tmp_path, vectors, capsys, command, error, cause):
    def fail():
        raise error

    model, data = vectors
    machine(1)
    monkeypatch.setattr(torch.cuda, "_lazy_init", fail)
    given = {"label": [data, "--out", tmp_path / "out"], "predict": [data, "--out", tmp_path / "scores.csv"]}
    assert main([command, "--run", *map(str, [model, *given.get(command, ["--data", "mnist"])])]) == 1
    said = capsys.readouterr().err
    assert said == (
        f"error: the GPU failed: {cause}; --device cpu scores on the processor; the machine may only be busy\n"
    )


def test_what_is_no_fault_of_a_gpu_is_not_said_to_be_one():
    with pytest.raises(RuntimeError, match="shape"), gpu_errors_in_a_line():
        raise RuntimeError("shape '[2]' is invalid")
