"""Where there are GPUs trials take them unasked, and what is given stays as it is."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from d2l_study.errors import UserError
from d2l_study.study.commands.plan_summary import show_plan
from d2l_study.study.commands.prepare_study import (
    PreparedStudy,
    RunOptions,
    known_concurrency,
    on_cluster,
    prepare_study,
)
from d2l_study.study.ledger import records
from d2l_study.study.space.keys import STACKED
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.stages import TRAINED_AS_TEACHERS
from d2l_study.study.tune import machine
from d2l_study.study.tune.machine import Machines, Node, cluster_machines, this_machine
from d2l_study.study.tune.trial_resources import TRIALS_PER_GPU, trial_resources

STUDENTS = """\
description: teachers and students for tests
data: {num_bags: 20, mean_bag_size: 5, val_bags: 10, test_bags: 10}
teacher: {steps: 4, eval_every: 2}
student: {steps: 4, eval_every: 2}
teachers: {plain: {}}
methods: {soft: {}}
references: [matched, oracle]
replicates: 2
"""


def fake_machine(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpus: int, cuda: str | None = "13.0", driver: int = 13000
) -> None:
    monkeypatch.setattr(machine, "find_gpus", lambda: (gpus, driver))
    monkeypatch.setattr(machine, "torch_cuda", lambda: cuda)
    monkeypatch.setattr(machine, "find_cores", lambda: cores)


def prepared(tmp_path: Path, *overrides: str, space: str = "vat_grid", **options: object) -> PreparedStudy:
    return prepare_study(RunOptions(space, root=str(tmp_path / "runs"), overrides=overrides, **options))


def words(study: PreparedStudy, capsys: pytest.CaptureFixture[str]) -> str:
    show_plan(study)
    return " ".join(capsys.readouterr().out.split())


def chosen(*nodes: tuple[float, float], most: int | None = None, **given: object) -> Resources:
    machines = Machines(tuple(Node(*node) for node in nodes))
    return trial_resources(Resources(**given), given.keys(), machines, most)


# ---- what a trial gets
def test_without_gpus_nothing_changes() -> None:
    for given in ({}, {"cpus": 2.0}, {"gpus": 0.0}, {"device": "cpu"}, {"precision": "auto"}):
        assert chosen((16, 0), **given) == Resources(**given)


def test_trials_share_a_gpu_and_the_cores() -> None:
    found = chosen((16, 1))
    assert (found.cpus, found.threads, found.precision, found.checkpoint_every) == (4, 4, "auto", None)
    assert found.kind == "cuda" and found.pack is None
    assert found.slots(16, 1) == TRIALS_PER_GPU == 4


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("cores", [1, 2, 4, 6, 7, 16, 64])
def test_all_cores_and_gpus_of_a_machine_are_used_and_no_more(cores: int, gpus: int) -> None:
    found = chosen((cores, gpus))
    each = math.floor(1 / found.gpus + 1e-9)
    slots = found.slots(cores, gpus)
    assert 1 <= each <= TRIALS_PER_GPU and each * found.gpus <= 1
    assert slots == each * gpus or cores < gpus  # every GPU has its trials; with fewer cores than GPUs, every core
    assert slots * found.cpus <= cores < slots * (found.cpus + 1) or found.cpus == 1
    assert found.threads == found.cpus


def test_what_is_given_is_kept() -> None:
    assert chosen((16, 1), gpus=0.0) == Resources(gpus=0.0)
    assert chosen((16, 1), device="cpu") == Resources(device="cpu")
    assert chosen((16, 1), pack=7, threads=2, precision="float32", checkpoint_every=50) == Resources(
        gpus=0.25, cpus=4, pack=7, threads=2, precision="float32", checkpoint_every=50
    )
    assert chosen((16, 1), cpus=8.0).slots(16, 1) == 2  # as many as there are cores for
    assert chosen((16, 1), cpus=8.0).threads == 8
    assert chosen((16, 1), cpus=16.0).gpus == 1
    whole = chosen((16, 2), gpus=1.0)
    assert (whole.gpus, whole.cpus, whole.threads, whole.precision) == (1, 8, 8, "auto")
    assert chosen((16, 4), gpus=2.0).cpus == 8
    assert chosen((16, 0), gpus=1.0) == Resources(gpus=1, precision="auto", checkpoint_every=None)  # a plan for another


def test_fewer_trials_at_a_time_get_more_of_the_machine() -> None:
    assert chosen((16, 1), most=1) == Resources(gpus=1, cpus=16, threads=16, precision="auto", checkpoint_every=None)
    assert chosen((16, 1), max_concurrent=2).cpus == 8
    assert chosen((16, 4), most=4).gpus == 1
    assert chosen((16, 4), most=5).gpus == 0.5
    assert (chosen((16, 8), most=1).cpus, chosen((16, 8), most=3).cpus, chosen((16, 8), most=8).cpus) == (16, 5, 2)
    assert chosen((16, 8), max_concurrent=3).threads == 5
    assert chosen((16, 8), gpus=0.5, most=2).cpus == 8
    assert chosen((16, 8), (16, 8), max_concurrent=3).cpus == 5  # a node may get all of them


def test_a_part_of_a_gpu_lies_on_one() -> None:
    assert chosen((16, 2), gpus=0.6).cpus == 8
    assert chosen((16, 2), gpus=0.4).cpus == 4


def test_on_a_cluster_the_nodes_with_gpus_count() -> None:
    assert chosen((2, 0), (64, 0), (16, 1)) == chosen((16, 1))
    assert chosen((4, 1), (16, 1)).slots(4, 1) == 4  # what fits the smallest node
    assert chosen((4, 0), (8, 0)) == Resources()


# ---- what there is
def test_gpus_count_if_they_are_visible_and_torch_can_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_nvml", lambda: (4, 12080))
    for visible, count in (("", 0), ("-1", 0), ("0", 1), ("2,3", 2), ("0,1,-1,2", 2), ("0,1,2,3,4,5", 4)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert machine.find_gpus() == (count, 12080)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert machine.find_gpus() == (4, 12080)
    for cuda, said in (("12.9", ""), ("11.8", ""), (None, "4 GPUs found, but this PyTorch is built without CUDA"),
                       ("13.0", "needs CUDA 13.0, and the driver has 12.8")):  # fmt: skip
        monkeypatch.setattr(machine, "torch_cuda", lambda cuda=cuda: cuda)
        assert this_machine().gpus == 4
        assert said in this_machine().unusable and bool(said) == bool(this_machine().unusable)


def test_torch_s_cuda_is_read_without_importing_it() -> None:
    import torch

    assert machine.torch_cuda() == torch.version.cuda


class FakeRay:
    """The nodes of a cluster, as `ray.nodes()` tells them."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._nodes = [
            {"Alive": True, "Resources": given, "NodeID": f"id{i}", "NodeManagerHostname": f"host{i}"}
            for i, given in enumerate(resources)
        ]

    def nodes(self) -> list[dict[str, object]]:
        return [*self._nodes, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}]


def test_a_cluster_s_head_without_cores_runs_no_trials() -> None:
    ray = FakeRay({"memory": 1.0}, {"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0})
    found = cluster_machines(ray, {})
    assert found.nodes == (Node(4, 1), Node(8, 0)) and found.gpus == 1
    assert cluster_machines(ray, {"id1": "", "id2": "this PyTorch is built without CUDA"}) == found  # it has no GPU
    none = cluster_machines(ray, {"id1": "this PyTorch is built without CUDA"})
    assert none.nodes == found.nodes and trial_resources(Resources(), (), none) == Resources()
    assert none.unusable == "1 GPU found on host1, but this PyTorch is built without CUDA"


def test_nodes_that_are_started_on_demand_count_where_there_are_no_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    head = FakeRay({"memory": 1.0})
    monkeypatch.setattr(machine, "RAY_UP_FILE", tmp_path / "missing.yaml")
    assert cluster_machines(head, {}).nodes == ()
    monkeypatch.setattr(machine, "RAY_UP_FILE", Path(__file__).parents[3] / "cluster.yaml")
    assert cluster_machines(head, {}).nodes == (Node(4, 1), Node(4, 1))
    assert cluster_machines(FakeRay({"CPU": 2.0}), {}).nodes == (Node(2, 0),)
    odd = tmp_path / "odd.yaml"
    monkeypatch.setattr(machine, "RAY_UP_FILE", odd)
    for text in ("available_node_types: 3", "[]", "a: [", "available_node_types: {a: {max_workers: x}}"):
        odd.write_text(text)
        assert cluster_machines(head, {}).nodes == ()


# ---- a study
def test_a_study_takes_the_gpu_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_machine(monkeypatch, cores=16, gpus=1)
    study = prepared(tmp_path)
    assert study.space.resources == chosen((16, 1))
    said = words(study, capsys)
    assert "1 GPU found: 4 trials at a time on it, their runs stacked; --set resources.device=cpu for the proc" in said
    assert "4 trials at a time: about" in said
    assert "2 trials at a time on it" in words(prepared(tmp_path, max_concurrent=2), capsys)
    assert "runs by turns" in words(prepared(tmp_path, "resources.pack=1"), capsys)
    half = words(prepared(tmp_path, "resources.gpus=0.5"), capsys)
    assert "1 GPU found: 2 trials at a time on it, their runs stacked" in half and "device=cpu" not in half
    fake_machine(monkeypatch, cores=16, gpus=4)
    assert "4 GPUs found: 4 trials at a time on each" in words(prepared(tmp_path), capsys)
    two = words(prepared(tmp_path, "resources.gpus=2"), capsys)
    assert "4 GPUs found: a trial takes 2 of them, and computes on one" in two
    assert "warning: a trial asks for 2 GPUs (resources.gpus) and computes on one" in two
    assert "warning" not in words(prepared(tmp_path, "resources.gpus=1"), capsys)


@pytest.mark.parametrize(
    ("cores", "gpus", "overrides", "most", "said", "at_once"),
    [
        (4, 8, (), None, "4 trials at a time, at most 1 on each", 4),
        (16, 8, (), 3, "3 trials at a time, at most 1 on each", 3),
        (16, 4, (), 6, "6 trials at a time, at most 2 on each", 6),
        (16, 2, ("resources.gpus=0.6",), None, "1 trial at a time on each", 2),
        (16, 2, ("resources.gpus=0.4",), None, "2 trials at a time on each", 4),
        (4, 1, ("resources.gpus=0.1", "resources.cpus=1"), None, "4 trials at a time on it", 4),
        (16, 8, ("resources.max_concurrent=3",), None, "3 trials at a time, at most 1 on each", 3),
    ],
)
def test_the_line_says_how_many_run(monkeypatch, tmp_path, capsys, cores, gpus, overrides, most, said, at_once) -> None:
    fake_machine(monkeypatch, cores, gpus)
    study = prepared(tmp_path, *overrides, max_concurrent=most)
    assert known_concurrency(study) == at_once
    assert f"found: {said}, their runs" in words(study, capsys)


def test_the_processor_is_named_where_it_should_need_far_less_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_machine(monkeypatch, cores=64, gpus=1)
    note = re.compile(
        r"note: the processor should need less time, about (\S+ (?:min|s)) with 64 trials at a time: --set reso"
    )
    on_gpu = words(prepared(tmp_path, space="distill_grid"), capsys)
    said = note.search(on_gpu)
    alone = words(prepared(tmp_path, "resources.device=cpu", space="distill_grid"), capsys)
    assert said is not None and f"64 trials at a time: about {said[1]} (" in alone
    assert note.search(words(prepared(tmp_path, space="student_tuning"), capsys)) is not None
    for silent in (
        alone,
        words(prepared(tmp_path), capsys),  # teachers, in stacks
        words(prepared(tmp_path, "resources.gpus=0.25", space="student_tuning"), capsys),  # by choice
        words(prepared(tmp_path, "resources.precision=bfloat16", space="student_tuning"), capsys),
        words(prepared(tmp_path, space="student_tuning", max_concurrent=2), capsys),
    ):
        assert "the processor should" not in silent


def test_stages_said_to_be_stacked_are_those_that_are() -> None:
    assert set(STACKED) == set(TRAINED_AS_TEACHERS)


def test_students_and_references_take_turns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_machine(monkeypatch, cores=16, gpus=1)
    space = tmp_path / "students.yaml"
    space.write_text(STUDENTS)
    assert "on it, teachers' runs stacked, all others by turns" in words(prepared(tmp_path, space=str(space)), capsys)


def test_a_study_that_is_told_to_stay_off_the_gpu_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_machine(monkeypatch, cores=16, gpus=1)
    for override in ("resources.device=cpu", "resources.gpus=0"):
        study = prepared(tmp_path, override)
        assert study.space.resources.kind == "cpu" and study.space.resources.precision == "float32"
        key, value = override.removeprefix("resources.").split("=")
        assert f"1 GPU found, and not used (resources.{key}: {value})" in words(study, capsys)


def test_a_gpu_that_torch_cannot_use_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_machine(monkeypatch, cores=16, gpus=2, cuda=None)
    study = prepared(tmp_path)
    assert study.space.resources == Resources()
    assert prepared(tmp_path, "resources.gpus=1").space.resources.kind == "cuda"  # somebody knows better
    said = words(study, capsys)
    assert "2 GPUs found, but this PyTorch is built without CUDA: trials compute on the processor" in said


def test_without_a_gpu_a_plan_says_nothing_of_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_machine(monkeypatch, cores=2, gpus=0)
    study = prepared(tmp_path)
    assert study.space.resources == Resources()
    said = words(study, capsys)
    assert "GPU" not in said and "processor" not in said


def test_a_cluster_is_looked_at_when_it_is_joined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_machine(monkeypatch, cores=16, gpus=1)  # the driver's machine is not the cluster
    study = prepared(tmp_path, address="auto", max_concurrent=2)
    assert study.space.resources == Resources() and study.machines is None
    assert "on GPUs if the cluster has any" in words(study, capsys)
    workers = Machines((Node(8, 1), Node(8, 1)))
    joined = on_cluster(study, workers)
    assert joined.space.resources == chosen((8, 1), (8, 1))  # max_concurrent is what a cluster may grow to
    assert "2 GPUs found: 4 trials at a time on each" in words(joined, capsys)
    assert on_cluster(study, Machines((Node(8, 0),))).space.resources == Resources()
    assert known_concurrency(joined) == 2
    assert known_concurrency(prepared(tmp_path, "resources.max_concurrent=1", address="auto", max_concurrent=2)) == 1
    told = on_cluster(prepared(tmp_path, "resources.device=cpu", address="auto"), workers)
    assert told.space.resources == Resources(device="cpu")


def test_a_study_that_exists_keeps_its_precision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_machine(monkeypatch, cores=16, gpus=1)
    study = prepared(tmp_path)
    study.folder.write(study.space.text, {"space": study.space.to_dict()}, study.plan.entries())
    assert study.space.resources.precision == prepared(tmp_path).space.resources.precision == "auto"
    study.folder.storage.put(f"{study.folder.key}/precision.json", records.encode({"precision": "bfloat16"}))
    assert prepared(tmp_path).space.resources.precision == "bfloat16"
    fake_machine(monkeypatch, cores=16, gpus=0)  # it goes on elsewhere
    assert prepared(tmp_path).space.resources == Resources(precision="bfloat16")
    with pytest.raises(UserError, match=r"resources\.precision: float32 is not allowed"):
        prepared(tmp_path, "resources.precision=float32")
