"""Whether a configuration can be trained on the instances and bags that it is given. It needs no torch, so that a plan
says the same before any trial starts as a fitting function in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from d2l_study.data.pool import Pool, Replicate
from d2l_study.errors import UserError, listed
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.training_options import LEAST_PATCH, PATCH_NETWORKS, VECTOR_NETWORKS

Section = TeacherConfig | StudentConfig


def check_fit(config: Section, replicates: Sequence[Replicate]) -> None:
    """`check_bags`, and `check_instances` of each pool."""
    check_bags(config, replicates)
    for pool in {id(replicate.pool): replicate.pool for replicate in replicates}.values():
        check_instances(config, pool)


def check_bags(config: Section, replicates: Sequence[Replicate]) -> None:
    """`UserError` if there is no replicate, or one has no bags to train on, to select by or to test on."""
    if not replicates:
        raise UserError("replicates: none are given; expected one at least")
    for replicate in replicates:
        needed = {"training": replicate.train, "validation": replicate.val, "test": replicate.test}
        for part, bags in needed.items():
            if len(bags):
                continue
            if part != "validation":
                raise UserError(f"replicate {replicate.number} has no {part} bags; expected one at least")
            if config.select != "last":
                raise UserError(
                    f"select: {config.select} needs validation bags; replicate {replicate.number} has none (without "
                    "any: last)"
                )


def check_instances(section: Section, pool: Pool) -> None:
    """`UserError` for a network that is none for instances like the pool's, or needs larger patches, and for an
    augmentation or noise instances that are none for them."""
    where = "teacher" if isinstance(section, TeacherConfig) else "student"
    if len(pool.shape) == 1:
        _check_vectors(section, where, pool)
    else:
        _check_patches(section, where, pool)


def _check_vectors(section: Section, where: str, pool: Pool) -> None:
    instances = f"those of data set {pool.name} are vectors of {pool.shape[0]} numbers"
    if section.network_name not in VECTOR_NETWORKS:
        raise UserError(
            f"{where}.{section.network_key}: {section.network_name} is a network of image patches; {instances} "
            f"(allowed: {listed(VECTOR_NETWORKS)})"
        )
    if section.augment != "none":
        raise UserError(f"{where}.augment: {section.augment} changes image patches; {instances} (allowed: none)")
    if isinstance(section, TeacherConfig) and section.lambda_noise > 0 and section.noise_kind == "uniform":
        raise UserError(
            f"{where}.noise_kind: uniform is over the range of pixels; {instances} (allowed: gaussian, shuffled, "
            "negatives)"
        )


def _check_patches(section: Section, where: str, pool: Pool) -> None:
    channels, height, width = pool.shape
    network = f"{where}.{section.network_key}: {section.network_name}"
    if section.network_name in VECTOR_NETWORKS:
        raise UserError(
            f"{network} is for vectors; the instances of data set {pool.name} are patches of {width}×{height} pixels "
            f"(allowed: {listed(PATCH_NETWORKS)})"
        )
    least = LEAST_PATCH[section.network_name]
    if min(height, width) < least:
        raise UserError(
            f"{network} needs patches of at least {least}×{least} pixels; those of data set {pool.name} have "
            f"{width}×{height}"
        )
    if section.augment == "histology" and channels != 3:
        raise UserError(
            f"{where}.augment: histology needs colour patches (3 channels); those of data set {pool.name} have "
            f"{channels}; dihedral goes with any"
        )
