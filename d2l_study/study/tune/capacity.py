"""How many trials run side by side on a machine or a cluster."""

from __future__ import annotations

from typing import Any

from d2l_study.errors import UserError
from d2l_study.study.space.resources import Resources


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

    It is what fits on it now, and at most `max_concurrent` (None: no such limit). A cluster that starts its nodes on
    demand has none yet; there it is `max_concurrent`, for which the cluster will grow. `UserError` if not one trial
    fits and no limit is given.
    """
    there = ray.cluster_resources()
    cpus, gpus = float(there.get("CPU", 0)), float(there.get("GPU", 0))
    if address == "local":
        fits = check_fits(resources, cpus, gpus)
        return min(fits, max_concurrent or fits)
    fits = resources.slots(cpus, gpus)
    if fits < 1 and max_concurrent is None:
        raise UserError(
            f"--address {address}: a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; the "
            f"cluster has {cpus:g} and {gpus:g} now. If it starts nodes on demand, say how many trials at a time it "
            "shall grow for: --max-concurrent N"
        )
    return max_concurrent or fits
