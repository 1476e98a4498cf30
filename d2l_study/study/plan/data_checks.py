"""What only the data can tell of a configuration, checked before any trial starts: whether its patches are large enough
for its networks and in colour where colour is asked for, and whether its reference rows can be trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from d2l_study.data import BagCollection
from d2l_study.data.given_bags import GivenBags
from d2l_study.data.neighbours import check_places
from d2l_study.data.pool import UNKNOWN, Pool, Replicate
from d2l_study.errors import UserError, listed
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.fit_checks import check_instances
from d2l_study.learning.part_config import TrainingPart
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.training_parts import training_parts
from d2l_study.learning.undefined_metrics import undefined_metrics
from d2l_study.options import Options
from d2l_study.study.plan.data_key_checks import BagsDigest, DataKeyChecks
from d2l_study.study.plan.data_summary import DataSummary
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.files import shown_path
from d2l_study.study.space.keys import CLASS_MAPS, SECTIONS
from d2l_study.study.space.space import Space


def check_data(
    configurations: Sequence[Configuration], space: Space, summary_lines: list[str] | None = None, new: bool = False
) -> list[str]:
    """`_check_data`, whose messages on keys of the space name the file, or the `--set` that gave the key."""
    try:
        return _check_data(configurations, space, summary_lines, new)
    except UserError as error:
        raise _placed(error, space) from None


def _placed(error: UserError, space: Space) -> UserError:
    message = str(error)
    key, _, rest = message.partition(": ")
    section, dot, _ = key.partition(".")
    if not (section in SECTIONS and dot and " " not in key) and key != "references":
        return error
    names = [one.partition("=")[0].strip() for one in space.overrides]
    given = [name for name in names if f".{key}".endswith(f".{name}") or name.endswith(f".{key}")]  # also of one arm
    return UserError(f"--set {given[-1]}: {rest}" if given else f"{shown_path(space.path)}: {message}")


def _check_data(
    configurations: Sequence[Configuration], space: Space, summary_lines: list[str] | None, new: bool
) -> list[str]:
    """`UserError` if the data cannot give a replicate that the space asks for, such as a fold of one class, or a
    configuration does not go with its data.

    Returns which main metrics the labels of given bags leave undefined, and in which replicates; drawn bags define all.
    summary_lines: lines on the given bags are added to it (`data_summary`); new: the study does not exist, so that what
    does nothing with these data is refused, too (`data_key_checks`).
    """
    key_checks = DataKeyChecks(space) if new else None
    found: dict[str, list[int]] = {}
    summaries: dict[tuple[str, int], DataSummary] = {}
    for data in dict.fromkeys(configuration.sections["data"] for configuration in configurations):
        mine = [c for c in configurations if c.sections["data"] == data]
        pool: Pool = data.load_pool()  # type: ignore[attr-defined]
        check_sections([section for c in mine for section in c.sections.values()], pool)
        parts = _numbers_of_parts(mine, space)
        if not isinstance(data, GivenBags):
            _check_drawn_parts(parts, data, pool, space)
            continue
        assert isinstance(pool, BagCollection)
        stages, digest = {c.stage for c in mine}, BagsDigest(pool)
        _check_class_maps(stages, pool)
        of_pool = summaries.setdefault((pool.checksum, len(pool.bags.instance)), DataSummary(pool))
        for replicate in data.replicates(pool, space.replicates, space.base_seed):  # each is dropped before the next
            if "oracle" in stages:
                _check_oracle(replicate)
            _check_parts(parts, replicate)
            digest.add(replicate)
            of_pool.add(replicate)
            for reason in undefined_metrics(replicate):
                found.setdefault(reason, []).append(replicate.number)
        if key_checks is not None:
            key_checks.check(mine, pool, digest)
    if summary_lines is not None:
        summary_lines += [line for one in summaries.values() for line in one.lines()]
    return [
        f"{reason} (replicate{'s' if len(numbers) > 1 else ''} {listed(numbers)}); means leave "
        f"{'them' if len(numbers) > 1 else 'it'} out"
        for reason, numbers in found.items()
    ]


def check_sections(sections: Sequence[Options], pool: Pool) -> None:
    """`UserError` for what `check_instances` refuses, or neighbours where instances have no places."""
    for section in sections:
        if not isinstance(section, (TeacherConfig, StudentConfig)):
            continue
        if isinstance(section, StudentConfig) and section.neighbours > 0:
            _check_neighbours(section.neighbours, pool)
        check_instances(section, pool)


def _check_neighbours(neighbours: int, pool: Pool) -> None:
    try:
        largest = int(check_places(pool).bags.sizes.max())
    except UserError as error:
        raise UserError(f"student.neighbours: {neighbours} {error}; 0 goes with any") from None
    if neighbours >= largest:
        raise UserError(
            f"student.neighbours: {neighbours} is not allowed: the largest bag of data set {pool.name} has {largest} "
            "instances, an instance has fewer neighbours"
        )


def _check_class_maps(stages: set[str], pool: BagCollection) -> None:
    if maps := sorted(stages & set(CLASS_MAPS)):
        from d2l_study.learning.class_maps import check_images

        try:
            check_images(pool)
        except UserError as error:
            raise UserError(f"references: {maps[0]}: {error}") from None


def _numbers_of_parts(configurations: Sequence[Configuration], space: Space) -> set[int]:
    """The numbers of parts of cross-fitted students; where one is searched for, also the largest that may be drawn."""
    found = {part.cross_fit for c in configurations if isinstance(part := c.sections.get("part"), TrainingPart)}
    written = [space.arm_keys(method).get("student", {}).get("cross_fit") for method in space.methods]
    drawn = [one for one in written if isinstance(one, Distribution)] if found else []
    return found | {int(max(one.choices or (one.high,))) for one in drawn}


def _check_drawn_parts(parts: set[int], data: Any, pool: Pool, space: Space) -> None:
    """`_check_parts` of bags that are drawn: without label noise, all replicates have as many of each class."""
    for number in range(space.replicates if data.label_noise > 0 else 1) if parts else ():
        _check_parts(parts, data.replicate(pool, number, space.base_seed))


def _check_parts(parts: set[int], replicate: Replicate) -> None:
    try:
        for count in sorted(parts, reverse=True):
            training_parts(replicate, count)
    except UserError as error:
        raise UserError(f"student.{error}") from None


def _check_oracle(replicate: Replicate) -> None:
    for part, bags, classes in (("training", replicate.train, 2), ("validation", replicate.val, 1)):
        known = np.unique(bags.instance_label[bags.instance_label != UNKNOWN])
        if len(known) < classes:
            lacking = "instances of known label" if not len(known) else "instances of both classes"
            raise UserError(
                f"references: oracle is trained on true instance labels, and the {part} bags of repeat "
                f"{replicate.repeat}, fold {replicate.fold or 0} of data set {replicate.pool.name} have no {lacking}; "
                "leave oracle out of `references`"
            )
