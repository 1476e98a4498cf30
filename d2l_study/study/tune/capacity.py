"""How many trials run side by side on a machine or a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from d2l_study.errors import UserError, listed
from d2l_study.study.space.resources import Resources
from d2l_study.study.tune.machine import Node, nodes_there, startable_nodes


def check_fits(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials fit side by side on so many CPUs and GPUs; `UserError` if not one does."""
    count = resources.slots(cpus, gpus)
    if count < 1:
        raise UserError(
            f"resources: a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; "
            f"there are {cpus:g} and {gpus:g}"
        )
    return count


def concurrent_trials(ray: Any, resources: Resources, address: str, max_concurrent: int | None) -> int:
    """How many trials to run side by side on a Ray that was started or joined.

    It is what fits on its nodes now, and at most `max_concurrent` (None: no such limit) and `resources.max_concurrent`.
    A cluster that starts its nodes on demand has none yet; with `max_concurrent` it is that, for which the cluster will
    grow. `UserError` if not one trial fits on any node, and no limit is given or no node that the cluster starts on
    demand is large enough.
    """
    if address == "local":
        there = ray.cluster_resources()
        fits = check_fits(resources, float(there.get("CPU", 0)), float(there.get("GPU", 0)))
        return min(fits, max_concurrent or fits)
    nodes, kinds = nodes_there(ray), startable_nodes()
    fits = _slots(resources, nodes)
    if fits < 1:
        asks = f"a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
        has = f"no node of the cluster has as many now ({_sizes(nodes)})"
        if kinds and not _slots(resources, kinds):
            raise UserError(f"--address {address}: {asks}; {has}, and none that it starts ({_sizes(kinds)})")
        if max_concurrent is None:
            raise UserError(
                f"--address {address}: {asks}; {has}. If it starts nodes on demand, say how many trials at a time it "
                "shall grow for: --max-concurrent N"
            )
        print(f"  {asks}; {has}: waiting for the cluster to start one", flush=True)
    return most_at_a_time(resources, fits if max_concurrent is None else max_concurrent)


def most_at_a_time(resources: Resources, count: int) -> int:
    """A number of trials side by side, as far as `resources.max_concurrent` allows it."""
    return count if resources.max_concurrent is None else min(count, resources.max_concurrent)


def _slots(resources: Resources, nodes: Sequence[Node]) -> int:
    """How many trials fit on some nodes. Each takes its place on one node."""
    return sum(resources.slots(node.cpus, node.gpus) for node in nodes)


def _sizes(nodes: Sequence[Node]) -> str:
    """The different sizes of nodes in words."""
    found = dict.fromkeys(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes)
    return listed(found) if found else "there is none for trials"
