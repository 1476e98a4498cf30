"""A request from the command line, read and checked: nothing has been written or started yet."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from d2l_study.errors import UserError
from d2l_study.study.commands import extend as extension
from d2l_study.study.ledger.gc_flag import last_collection
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, configurations
from d2l_study.study.plan.data_checks import check_data
from d2l_study.study.plan.data_checksums import DataChecksums
from d2l_study.study.plan.plan import Plan, make_plan
from d2l_study.study.plan.precision import check_precision
from d2l_study.study.search.search import Search
from d2l_study.study.space.arm_checks import check_arms
from d2l_study.study.space.load import load_space
from d2l_study.study.space.space import Space, study_name
from d2l_study.study_names import can_be_folder, check_study_name


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    space: str
    study: str | None = None
    overrides: tuple[str, ...] = ()
    replicates: int | None = None
    limit: int | None = None
    max_concurrent: int | None = None
    address: str = "local"
    root: str = "runs"
    tracking_uri: str | None = None
    fresh: bool = False
    extend: bool = False
    fail_fast: bool = False


@dataclass(frozen=True)
class Study:
    """A validated request: nothing has been written or started yet."""

    request: Request
    space: Space
    folder: StudyFolder
    plan: Plan
    checksum: Checksum = ""
    search: Search | None = None
    undefined: tuple[str, ...] = ()
    """Which metrics its data leave undefined, in words."""
    data: tuple[str, ...] = ()
    """What its given bags are, in lines."""
    collected: str = ""
    """The last collection (`gc_flag`) before the plan was compared with the ledger."""

    @property
    def name(self) -> str:
        return self.folder.name


def prepare(request: Request) -> Study:
    """Read and check everything that can be checked before anything is written: space, data, plan."""
    space = load_space(request.space, request.overrides, request.replicates)
    name = study_name(space) if request.study is None else request.study
    storage = open_storage(request.root)
    storage.ensure_usable()
    folder = StudyFolder(storage, name)
    if not (can_be_folder(name) and folder.exists()):
        # One that exists goes on under its name, which may be from before there was a rule.
        check_study_name(name, "--study" if request.study is not None else f"--space {request.space}: the study's name")
    collected = last_collection(storage)
    checksums = DataChecksums()
    search = Search(space, folder, checksums) if space.adaptive else None
    asked = search.configurations if search else None
    if request.fresh and search is not None:
        raise UserError(
            f"--fresh: not allowed with a search by {space.search and space.search.method}, which is told what the "
            "ledger holds; give it a ledger of its own with --root"
        )
    pruned_by = name if space.schedule != "none" else None
    plan = make_plan(space, checksums, folder.ledger, asked, pruned_by, name if request.fresh else None)
    new = not extension.known(folder, plan.entries())
    if new:
        check_arms(space)
    if search is not None or plan.trials():
        check_precision(folder, space.resources.precision)
    data: list[str] = []
    undefined = check_data(plan.configurations or configurations(space, checksums), space, data, new)
    return Study(request, space, folder, plan, checksums, search, tuple(undefined), tuple(data), collected)


def check_same(study: Study) -> None:
    """`UserError` if the folder holds another study. A search has been compared when it was read."""
    if study.search is None or not study.search.trials:
        extension.check_same(study.folder, study.plan.entries(), study.space, study.request.extend)


def machine() -> tuple[int, int]:
    """The processor cores that this process may use, and this machine's NVIDIA GPUs."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus, len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def known_slots(space: Space, request: Request) -> int | None:
    """How many trials would run side by side here, or where a cluster is named what was asked for; None without that:
    a cluster's own number is known once it is joined."""
    if request.address != "local":
        return request.max_concurrent
    cpus, gpus = machine()
    fits = space.resources.slots(cpus, gpus or 1)  # a plan for a GPU can be made anywhere
    return max(1, min(fits, request.max_concurrent or fits))
