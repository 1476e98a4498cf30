"""Which device a study's trials take, and why: the line that `plan` and `run` print of it where there are GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2l_study.errors import counted
from d2l_study.study.space.keys import STACKED
from d2l_study.study.space.resources import trials_on_gpus
from d2l_study.terminal import print_wrapped

if TYPE_CHECKING:
    from d2l_study.study.commands.prepare_study import PreparedStudy
    from d2l_study.study.tune.machine import Machines


def show_device(study: PreparedStudy) -> None:
    """Print the device of the trials; nothing where there are processor cores alone."""
    if (text := device_text(study)) is not None:
        print_wrapped(text, "  ")


def device_text(study: PreparedStudy) -> str | None:
    """The device of a study's trials in words: how many share a GPU, and how their runs are trained there. None where
    there is nothing to say."""
    resources, given, machines = study.space.resources, study.space.given_resources, study.machines
    looks = resources.device == "auto" and "gpus" not in given
    if machines is None:
        return "on GPUs if the cluster has any, which is seen when it is joined" if looks else None
    if machines.unusable and resources.kind == "cpu":
        return f"{machines.unusable}: trials compute on the processor"
    if not machines.gpus:
        return None
    found = f"{counted(machines.gpus, 'GPU')} found"
    if resources.kind == "cpu":
        why = f"device: {resources.device}" if resources.device == "cpu" else f"gpus: {resources.gpus:g}"
        return f"{found}, and not used (resources.{why})"
    hint = "; --set resources.device=cpu for the processor" if looks else ""
    return f"{found}: {_share(study, machines)}, {_training(study)}{hint}"


def _share(study: PreparedStudy, machines: Machines) -> str:
    """How trials share the GPUs, in words."""
    resources, gpus = study.space.resources, machines.gpus
    if resources.gpus > 1:
        return f"a trial takes {resources.gpus:g} of them, and computes on one"
    each = trials_on_gpus(resources.gpus, 1)
    fits = sum(resources.slots(node.cpus, node.gpus) for node in machines.nodes)
    if study.options.address == "local" and study.options.max_concurrent is not None:  # else a cluster may grow to it
        fits = min(fits, study.options.max_concurrent)
    if gpus == 1:
        return f"{counted(max(1, min(each, fits)), 'trial')} at a time on it"
    if 0 < fits < each * gpus:  # there are not cores for more, or more are not asked for
        return f"{counted(fits, 'trial')} at a time, at most {each} on each"
    return f"{counted(each, 'trial')} at a time on each"


def _training(study: PreparedStudy) -> str:
    """Which runs are trained as stacks, and which take turns."""
    stages = {c.stage for c in study.plan.configurations} or {study.space.stage}
    if study.space.resources.pack == 1 or not stages & set(STACKED):
        return "their runs by turns"
    return "their runs stacked" if stages <= set(STACKED) else "teachers' runs stacked, all others by turns"
