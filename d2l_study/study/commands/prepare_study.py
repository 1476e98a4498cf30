"""A study from the options of the command line: everything is read and checked, and nothing written or started yet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from d2l_study.errors import UserError
from d2l_study.study.commands import extend
from d2l_study.study.ledger.gc_lock import last_collection
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, configurations
from d2l_study.study.plan.data_checks import check_data
from d2l_study.study.plan.data_checksums import DataChecksums
from d2l_study.study.plan.plan import Plan, make_plan
from d2l_study.study.plan.precision import check_precision, known_precision
from d2l_study.study.search.search import Search, check_no_search_that_learns
from d2l_study.study.space.arm_checks import check_arms
from d2l_study.study.space.load import load_space
from d2l_study.study.space.space import Space, study_name
from d2l_study.study.tune.capacity import most_at_a_time
from d2l_study.study.tune.machine import Machines, this_machine
from d2l_study.study.tune.trial_resources import trial_resources
from d2l_study.study_names import can_be_folder, check_study_name


@dataclass(frozen=True)
class RunOptions:
    """The options of `run` and `plan`, by their names on the command line (overrides: `--set`)."""

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
    explain: bool = False


@dataclass(frozen=True)
class PreparedStudy:
    """A study whose options, space and data have been checked. Nothing has been written or started yet.

    checksum: of its data, or a function of a data section. search: None if its configurations are known beforehand.
    """

    options: RunOptions
    space: Space
    folder: StudyFolder
    plan: Plan
    checksum: Checksum = ""
    search: Search | None = None
    undefined_metrics: tuple[str, ...] = ()
    """Which metrics its data leave undefined, a line each."""
    data_summary: tuple[str, ...] = ()
    """What its given bags are, in lines."""
    machines: Machines | None = None
    """What its trials run on; None on a cluster that has not been joined yet."""
    last_collection: str = ""
    """The last garbage collection (`gc_lock`) before the plan was compared with the ledger."""
    documents: tuple[str, ...] = ()
    """The state of the study's documents (`StudyDocuments.state`) before they were read."""

    @property
    def name(self) -> str:
        return self.folder.name


def prepare_study(options: RunOptions) -> PreparedStudy:
    """Read and check all that can be checked before anything is written: space, data, plan. `UserError` if something is
    wrong."""
    space = load_space(options.space, options.overrides, options.replicates)
    name = study_name(space) if options.study is None else options.study
    storage = open_storage(options.root)
    storage.ensure_usable()
    folder = StudyFolder(storage, name)
    if not (can_be_folder(name) and folder.exists()):
        # A study that exists keeps its name, which may be from before there was a rule.
        check_study_name(name, "--study" if options.study is not None else f"--space {options.space}: the study's name")
    documents, collection = folder.state(), last_collection(storage)
    checksums = DataChecksums()
    check_no_search_that_learns(folder, space)
    search = Search(space, folder, checksums) if space.adaptive else None
    asked = search.configurations if search else None
    if options.fresh and search is not None:
        raise UserError(
            f"--fresh: not allowed with a search by {space.search and space.search.method}, which is told what the "
            "ledger holds; give it a ledger of its own with --root"
        )
    pruned_by = name if space.schedule != "none" else None
    made_by = name if options.fresh else None
    plan = make_plan(space, checksums, folder.ledger, asked, pruned_by, made_by, folder.fresh_of)
    if search is not None:
        bring_up_to_date(search, plan)
    new = not extend.is_known(folder, plan.entries())
    if new:
        check_arms(space)
    machines = this_machine() if options.address == "local" else None
    if machines is not None:
        space = with_resources(space, machines, options.max_concurrent)
    if search is not None or plan.trials():
        space = _keep_precision(space, folder)
    summary: list[str] = []
    undefined = check_data(plan.configurations or configurations(space, checksums), space, summary, new)
    return PreparedStudy(
        options, space, folder, plan, checksums, search, tuple(undefined), tuple(summary), machines, collection,
        documents,
    )  # fmt: skip


def bring_up_to_date(search: Search, plan: Plan) -> None:
    """Let a search know, without writing it, how its trials stand: by the replicates that the plan asks for, and open
    where it has runs to train."""
    search.judge(plan.replicates)
    search.reopen({trial.configuration.config_id for trial in plan.trials()})


def with_resources(space: Space, machines: Machines, most: int | None) -> Space:
    """The space with what each of its trials gets on these machines. most: trials at a time (`--max-concurrent`)."""
    resources = trial_resources(space.resources, space.given_resources, machines, most)
    return dataclasses.replace(space, resources=resources)


def _keep_precision(space: Space, folder: StudyFolder) -> Space:
    """The space with the precision of a study that exists, unless the space gives one. `UserError` if it gives
    another."""
    if "precision" in space.given_resources:
        check_precision(folder, space.resources.precision)
        return space
    known = known_precision(folder) or space.resources.precision
    return dataclasses.replace(space, resources=dataclasses.replace(space.resources, precision=known))


def on_cluster(study: PreparedStudy, machines: Machines) -> PreparedStudy:
    """The study on the nodes of a cluster that was joined. There `max_concurrent` is what the cluster may grow to."""
    return dataclasses.replace(study, space=with_resources(study.space, machines, None), machines=machines)


def check_same_study(study: PreparedStudy) -> None:
    """`UserError` if its folder holds a study of another space. A search was compared when it was read."""
    if study.search is None or not study.search.trials:
        extend.check_same_study(study.folder, study.plan.entries(), study.space, study.options.extend)
    if not study.options.extend:
        extend.check_same_schedule(study.folder, study.space)


def known_concurrency(study: PreparedStudy) -> int | None:
    """How many trials will run side by side, as far as it is known before Ray is started.

    On a cluster it is `--max-concurrent`, and None without that: how many fit is known once the cluster is joined.
    """
    most = study.options.max_concurrent
    if study.options.address != "local" or study.machines is None:
        return most if most is None else most_at_a_time(study.space.resources, most)
    (machine,) = study.machines.nodes
    fits = study.space.resources.slots(machine.cpus, machine.gpus or 1)  # a plan for a GPU can be made anywhere
    return max(1, min(fits, most or fits))
