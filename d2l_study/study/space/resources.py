"""The resources of one trial. They change no result, so they are not part of a configuration's id."""

from __future__ import annotations

import math
from dataclasses import dataclass

from d2l_study.errors import UserError
from d2l_study.options import Options, option


@dataclass(frozen=True)
class Resources(Options):
    """The `resources` section of a space: what each trial asks of Ray, and how it computes."""

    cpus: float = option(
        1.0, "processor cores of one trial; on a GPU, where it is not given: those of its machine, shared out",
        least=0, most=4096, scientific=False,
    )  # fmt: skip
    gpus: float = option(
        0.0, "GPUs of one trial, which computes on one; a fraction shares it, 0 takes none; where it is not given and "
        "device is auto: a part of one if there are GPUs", least=0, most=64, scientific=False,
    )  # fmt: skip
    device: str = option(
        "auto", "where trials compute; auto: on GPUs if this machine, or the cluster, has any",
        choices=("auto", "cpu", "cuda"), synonyms={"gpu": "cuda"}, scientific=False,
    )  # fmt: skip
    precision: str = option(
        "float32", "number format of the network's passes; auto: the study's first trial probes which is faster on its "
        "machine, and all others keep to it; where it is not given, auto on a GPU, and what a study has that exists",
        choices=("float32", "bfloat16", "auto"), synonyms={"fp32": "float32"}, scientific=False,
    )  # fmt: skip
    threads: int = option(
        1, "threads of torch, and of drawing for a pack, in one trial; on a GPU, where it is not given: as many as "
        "cpus", least=1, most=1024, scientific=False,
    )  # fmt: skip
    max_concurrent: int | None = option(None, "most trials at a time; null: as many as fit", least=1, scientific=False)
    retries: int = option(1, "further attempts after a lost worker or node", least=0, most=100, scientific=False)
    pack: int | None = option(
        None, "train runs as stacks of at most so many; 1: by turns; null: on a GPU as many as suit it, on a CPU by "
        "turns", least=1, scientific=False,
    )  # fmt: skip
    checkpoint_every: int | None = option(
        500, "optimizer steps between checkpoints of a run; 0: never; null, and on a GPU where it is not given: about "
        "every two minutes", least=0, scientific=False,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cpus == 0 and self.gpus == 0:
            raise UserError("cpus: 0 is not allowed together with gpus: 0; a trial needs one or the other")
        if self.gpus > 1 and not self.gpus.is_integer():
            raise UserError(f"gpus: {self.gpus:g} is not allowed; above 1 expected a whole number")
        if self.device == "cuda" and self.gpus == 0:
            raise UserError("device: 'cuda' is not allowed with gpus: 0; give each trial a GPU (gpus: 1)")
        if self.device == "cpu" and self.gpus > 0:
            raise UserError(f"device: 'cpu' is not allowed with gpus: {self.gpus:g}; expected auto, cuda or gpus: 0")

    @property
    def kind(self) -> str:
        """The kind of device a trial computes on, `cpu` or `cuda`."""
        return "cuda" if self.gpus > 0 else "cpu"

    @property
    def packs(self) -> bool:
        """Whether trials train their runs as stacks (`Compute.packs`)."""
        return self.kind == "cuda" if self.pack is None else self.pack > 1

    def slots(self, cpus: float, gpus: float = 0.0) -> int:
        """How many trials run at once on so many processor cores and GPUs; 0 if none fits."""
        fits = math.inf
        if self.cpus > 0:
            fits = math.floor(cpus / self.cpus + 1e-9)
        if self.gpus > 0:
            fits = min(fits, trials_on_gpus(self.gpus, gpus))
        if self.max_concurrent is not None:
            fits = min(fits, self.max_concurrent)
        return int(fits)


def trials_on_gpus(asked: float, gpus: float) -> int:
    """How many trials fit on so many GPUs. asked: GPUs of each; a part of one has to lie on one, as Ray has it."""
    if asked < 1:
        return math.floor(gpus + 1e-9) * math.floor(1 / asked + 1e-9)
    return math.floor(gpus / asked + 1e-9)
