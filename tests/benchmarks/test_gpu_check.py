"""`make gpu` on a CPU: every part runs in its short form, and one that fails is said and stops no other."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from d2l_study.study.space.load import load_space

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as `python benchmarks/gpu_check.py` has it

import first_steps  # noqa: E402
import gpu_check  # noqa: E402
from gpu_check import SPACE, STUDY_ARMS, GpuUse, Outcome, run_logged, space_of_arms  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    out = tmp_path_factory.mktemp("gpu") / "page"
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--device", "cpu", "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, cwd=out.parent), out


@pytest.mark.soak
def test_every_part_runs_on_a_cpu(whole: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, out = whole
    assert done.returncode == 0, done.stdout + done.stderr
    page = (out / "page.txt").read_text()
    assert page in done.stdout
    found = json.loads((out / "gpu_check.json").read_text())
    assert [row["arm"] for row in found["equality"]["rows"]] == list(first_steps.ARMS)
    assert all(row["equal"] for row in found["equality"]["rows"])
    assert len(found["scoring"]["rows"]) == 4 and all(row["equal"] for row in found["scoring"]["rows"])
    assert any("ms_2" in row for row in found["steps"]["rows"])
    assert "adv_low − none" in page and found["study"]["seconds"] > 0
    assert (out / "rows.parquet").stat().st_size > 0


def test_a_part_that_fails_is_said_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(name: str, *others: object) -> Outcome:
        if name == "equality":
            raise RuntimeError("the driver is too old")
        if name == "steps":
            return Outcome(problem=run_logged([sys.executable, "-c", "raise SystemExit('lost')"], tmp_path / "log", 60))
        return Outcome(text="a table")

    monkeypatch.setattr(gpu_check, "run_part", part)
    assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path)]) == 1
    page = capsys.readouterr().out
    assert "equality: FAILED: RuntimeError: the driver is too old" in page
    assert "steps: FAILED: exit code 1: lost" in page
    assert "study: fine" in page and "a table" in page


def test_a_part_that_hangs_is_ended(tmp_path: Path) -> None:
    problem = run_logged([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log", 1)
    assert problem == "not done after 1 s; log says how far it came"


def test_a_check_that_is_stopped_leaves_no_part_at_work(tmp_path: Path) -> None:
    program = (
        "import gpu_check, pathlib, signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
        "part = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'; "
        f"gpu_check.run_logged([sys.executable, '-c', part], pathlib.Path({str(tmp_path / 'log')!r}), 600)"
    )
    check = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT / "benchmarks")
    deadline = time.monotonic() + 120
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text().strip():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    check.terminate()
    assert check.wait(60) == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "log").read_text()), 0)


def test_a_wrong_step_is_not_equal() -> None:
    """One layer that differs by a hundredth is seen, though the losses are still equal."""
    config = first_steps.TeacherConfig(steps=first_steps.STEPS + 1, eval_every=1)
    reference = first_steps.one_by_one(config, first_steps.noisy_replicates(1))
    losses, parameters = reference[0]
    name = next(iter(parameters))
    wrong = [(losses, {**parameters, name: parameters[name] * 1.01})]
    assert first_steps.differences(reference, reference) == {"first_loss": 0, "losses": 0, "parameters": 0}
    found = first_steps.differences(reference, wrong)
    assert found["parameters"] == pytest.approx(0.01, rel=1e-3) and found["losses"] == 0
    assert found["parameters"] > first_steps.TOLERANCES["parameters"]
    assert np.all(np.isfinite(losses)) and len(losses) == first_steps.STEPS


def test_the_table_of_steps_has_a_line_for_each_stack() -> None:
    reason = "the step could not be compiled: no Triton"
    row = {
        "K": 10, "arm": "adv", "compiled": True, "ms_1": 0.5, "tflops_1": 1.0, "compiled_1": "compiled",
        "ms_20": 1.0, "tflops_20": 10.0, "compiled_20": reason, "steps_20": "replayed",
    }  # fmt: skip
    values = {"rows": [row, {"K": 10, "products layers": 40.0}, {"K": 100, "arm": "adv", "failed": "out of memory"}]}
    _, one, many, rates, failed = gpu_check.step_table(values).splitlines()
    assert one.split()[:6] == ["10", "adv", "yes", "1", "0.5", "1.00"] and "2%" in one
    assert "2.00 ×" in many and "25%" in many and many.endswith(reason)
    assert "products layers 40" in rates and failed.endswith("failed out of memory")


def test_the_space_of_the_study_is_vat_grid_with_two_of_its_arms(tmp_path: Path) -> None:
    path = tmp_path / "part.yaml"
    path.write_text(space_of_arms(SPACE.read_text(), STUDY_ARMS))
    part, whole = load_space(path), load_space(SPACE)
    assert list(part.methods) == list(STUDY_ARMS)
    assert part.methods == {arm: whole.methods[arm] for arm in STUDY_ARMS}
    assert (part.sections, part.recipe, part.base_seed) == (whole.sections, whole.recipe, whole.base_seed)


def test_the_use_of_the_gpu_is_that_between_its_first_and_last_work(tmp_path: Path) -> None:
    file = tmp_path / "use.csv"
    busy = (0, 0, 80, 0, 100, 60, 0)
    file.write_text("".join(f"2026/11/27 08:00:0{s}.000, {share}, 900, 150.5\n" for s, share in enumerate(busy)))
    assert GpuUse(file).summary() == {
        "seconds": 7, "working": 4, "busy": 60, "idle": 1, "memory": 900, "watts": 150.5
    }  # fmt: skip
    assert GpuUse(tmp_path / "none.csv").lines() == []


@pytest.mark.parametrize(
    ("visible", "identity", "asked"),
    [("3", None, "3"), ("GPU-6e0c,1", None, "GPU-6e0c"), (None, None, "0"), ("3", "6e0c-12", "GPU-6e0c-12")],
)
def test_the_gpu_that_is_used_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, identity: str | None, asked: str
) -> None:
    import torch

    smi = tmp_path / "nvidia-smi"
    smi.write_text('#!/bin/sh\necho "$@"\necho told >&2\n')
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: identity is not None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=identity))
    with gpu_check.gpu_use(tmp_path / "use.csv") as use:
        deadline = time.monotonic() + 10
        while "told" not in use.file.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert f"--id={asked} " in use.file.read_text()


def test_a_use_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    file = tmp_path / "use.csv"
    for said in ("2026/11/27 08:00:00.000, [N/A], 4000, 200.00", "No devices were found"):
        file.write_text(f"{said}\n" * 3)
        assert GpuUse(file).rows() == []
        assert GpuUse(file).lines() == [f"The GPU's use could not be read; nvidia-smi says: {said}"]


def test_without_a_gpu_the_page_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu_check.main(["--out", str(tmp_path)]) == 1
    assert "PyTorch finds no GPU here; --device cpu" in capsys.readouterr().out
