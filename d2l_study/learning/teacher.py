"""Training the teacher: attention MIL with the three regularizers, all replicates of a configuration in lockstep.

    fitted = fit_teacher(TeacherConfig(lambda_adv=1.0), replicates)

The replicates take turns, one interval (`eval_every` steps) each, or are trained packed (`packing`). Every
draw is addressed by replicate and step, so the result is that of training them one by one, and that of a run resumed
from a checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from d2l_study.data.pool import Replicate
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.fit_checks import check_fit
from d2l_study.learning.lockstep import Callbacks
from d2l_study.learning.noise_instances import check_noise
from d2l_study.learning.packing import instance_kinds, packed_or_by_turns
from d2l_study.learning.prediction import Compute
from d2l_study.learning.sequential import fit_sequentially
from d2l_study.learning.training_result import FittedTeacher
from d2l_study.learning.unlabelled_bags import unlabelled_task


def fit_teacher(
    config: TeacherConfig,
    replicates: Sequence[Replicate],
    *,
    compute: Compute | None = None,
    **callbacks: Unpack[Callbacks],
) -> list[FittedTeacher]:
    """Train every replicate and evaluate its selected snapshot.

    A replicate whose loss is no longer finite stops with status `failed`; the others go on. A length in epochs is that
    of each replicate (`Replicate.epoch_bags`); if the replicates then differ in steps, or only some have unlabelled
    bags, or they read different pools or other units (`instance_kinds`), they take turns. The keywords `report`,
    `checkpoint`, `checkpoint_every` and `resume` are those of `lockstep.Callbacks`. `UserError` where the
    configuration does not go with the instances or bags (`fit_checks`), or noise instances are to be negatives and a
    replicate has none.
    """
    check_fit(config, replicates)
    for replicate in replicates:
        check_noise(config, replicate)
    compute = packed_or_by_turns(config, replicates, compute or Compute())
    first, *others = dict.fromkeys(config.in_steps(replicate.epoch_bags) for replicate in replicates)
    unequal = len({unlabelled_task(first, replicate) is None for replicate in replicates}) > 1
    if not compute.packs or others or unequal or any(instance_kinds(replicates)):
        return fit_sequentially(config, replicates, compute, callbacks)
    from d2l_study.learning.packed.training import fit_pack  # most trainings need none of it

    return fit_pack(
        [(first, replicate) for replicate in replicates], [replicate.number for replicate in replicates],
        compute, callbacks,
    )  # fmt: skip
