"""Which device a study's trials take, and why: the line that `plan` and `run` print of it where there are GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2l_study.errors import counted
from d2l_study.study.space.keys import STACKED
from d2l_study.terminal import print_wrapped

if TYPE_CHECKING:
    from d2l_study.study.commands.prepare_study import PreparedStudy


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
    if resources.gpus > 1:
        share = f"a trial on {resources.gpus:g} of them"
    else:
        share = f"{counted(int(1 / resources.gpus + 1e-9), 'trial')} at a time on {_each(machines.gpus)}"
    hint = "; --set resources.device=cpu for the processor" if looks else ""
    return f"{found}: {share}, {_training(study)}{hint}"


def _each(gpus: int) -> str:
    return "it" if gpus == 1 else "each"


def _training(study: PreparedStudy) -> str:
    """Which runs are trained as stacks, and which take turns."""
    stages = {c.stage for c in study.plan.configurations} or {study.space.stage}
    if study.space.resources.pack == 1 or not stages & set(STACKED):
        return "their runs by turns"
    return "their runs stacked" if stages <= set(STACKED) else "teachers' runs stacked, all others by turns"
