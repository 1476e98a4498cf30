"""How many trials run side by side: each takes its place on one node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d2l_study.errors import UserError
from d2l_study.study.space.resources import Resources
from d2l_study.study.tune import machine
from d2l_study.study.tune.capacity import concurrent_trials


class Nodes:
    """As much of Ray as is asked: the resources of the nodes that are alive, and of a dead one."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self.resources = resources

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": own} for own in self.resources] + [{"Alive": False, "Resources": {}}]

    def cluster_resources(self) -> dict[str, float]:
        return {name: sum(own.get(name, 0) for own in self.resources) for name in ("CPU", "GPU")}


@pytest.fixture(autouse=True)
def description(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the description of a cluster lies that starts nodes on demand; it is not there yet."""
    monkeypatch.setattr(machine, "RAY_UP_FILE", tmp_path / "ray_up.yaml")
    return tmp_path / "ray_up.yaml"


def test_slots_are_counted_node_by_node() -> None:
    ray = Nodes({"memory": 1.0}, {"CPU": 3.0}, {"CPU": 3.0, "GPU": 1.0})
    assert concurrent_trials(ray, Resources(), "auto", None) == 6
    assert concurrent_trials(ray, Resources(cpus=2), "auto", None) == 2  # three would fit on all cores together
    assert concurrent_trials(ray, Resources(gpus=0.25), "auto", None) == 3


@pytest.mark.parametrize("nodes", [({"CPU": 1.0}, {"CPU": 1.0}), ({"memory": 1.0},)])
def test_a_trial_larger_than_every_node_is_refused_unless_the_cluster_may_grow(
    nodes: tuple[dict[str, float], ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"asks for 2 CPUs and 0 GPUs; no node .* as many now \(.*--max-concurrent N"):
        concurrent_trials(Nodes(*nodes), Resources(cpus=2), "auto", None)
    assert not capsys.readouterr().out
    assert concurrent_trials(Nodes(*nodes), Resources(cpus=2), "auto", 5) == 5
    assert "waiting for the cluster to start one" in capsys.readouterr().out


def test_a_trial_larger_than_every_node_that_the_cluster_starts_is_refused(description: Path) -> None:
    description.write_text("available_node_types: {small: {max_workers: 9, resources: {CPU: 4}}}")
    ray = Nodes({"memory": 1.0})
    assert concurrent_trials(ray, Resources(cpus=4), "auto", 9) == 9
    with pytest.raises(UserError, match="none that it starts \\(4 CPUs and 0 GPUs\\)"):
        concurrent_trials(ray, Resources(cpus=8), "auto", 9)


@pytest.mark.parametrize("address", ["local", "auto"])
def test_of_two_limits_the_lower_one_holds(address: str) -> None:
    ray = Nodes({"CPU": 16.0})
    assert concurrent_trials(ray, Resources(max_concurrent=4), address, 8) == 4
    assert concurrent_trials(ray, Resources(max_concurrent=8), address, 4) == 4
    assert concurrent_trials(ray, Resources(max_concurrent=4), address, None) == 4
