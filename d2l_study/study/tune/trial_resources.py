"""What one trial is given, where the space leaves it open: `resources.device: auto` looks for GPUs.

Where there are GPUs trials compute on them, and several share one: while one of them works on the processor (it draws
bags, evaluates, writes results), the others keep the GPU at work. Cores are shared out among the trials side by side.
What a space or `--set` gives stays as it is, and where there is no GPU everything does.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from d2l_study.study.space.resources import Resources, trials_on_gpus
from d2l_study.study.tune.machine import Machines, Node

TRIALS_PER_GPU = 4
"""Trials side by side on one GPU, where there are cores for them. Two were 1.7 times as fast as one
(benchmarks/records/2026-11-26-packed-h100)."""

GPU_UNITS = 10_000
"""The parts that Ray divides a GPU into."""


def trial_resources(
    resources: Resources, given: Collection[str], machines: Machines, most: int | None = None
) -> Resources:
    """The resources of each trial of a study.

    given: the keys that the space or `--set` gives, which are kept; machines: what there is; most: trials at a time at
    most (`--max-concurrent`), None without limit. On a GPU, what is not given becomes: a part of a GPU and of the
    cores, as many threads as cores, the study's own precision (`auto`) and checkpoints by time.
    """
    nodes = [node for node in machines.nodes if node.gpus >= 1]
    found = resources.device == "auto" and "gpus" not in given and bool(nodes) and not machines.unusable
    if not found and resources.gpus == 0:
        return resources
    chosen: dict[str, Any] = {"precision": "auto", "checkpoint_every": None}
    gpus = resources.gpus
    limit = min((limit for limit in (most, resources.max_concurrent) if limit is not None), default=None)
    if found:
        cpus = resources.cpus if "cpus" in given else 1.0
        gpus = chosen["gpus"] = _part_of_gpu(nodes, cpus, limit)
    trials = [trials_on_gpus(gpus, node.gpus) for node in nodes]
    if limit is not None:  # where fewer may run than fit, no core waits for the others
        trials = [min(count, limit) for count in trials]
    cores = [node.cpus // max(1, count) for node, count in zip(nodes, trials, strict=True)]
    cpus = resources.cpus if "cpus" in given else max(1.0, min(cores, default=1.0))
    chosen |= {"cpus": cpus, "threads": max(1, int(cpus))}
    return dataclasses.replace(resources, **{key: value for key, value in chosen.items() if key not in given})


def _part_of_gpu(nodes: Collection[Node], cpus: float, most: int | None) -> float:
    """The part of a GPU that each trial gets: cpus: cores that it needs at least; most: trials at a time, None: any
    number."""
    trials = TRIALS_PER_GPU
    for node in nodes:
        if cpus > 0:
            trials = min(trials, int(node.cpus / cpus / node.gpus))
    if most is not None:
        trials = min(trials, math.ceil(most / sum(node.gpus for node in nodes)))
    return math.floor(GPU_UNITS / max(1, trials)) / GPU_UNITS  # rounded down, so that all of them fit
