"""The `run` and `plan` commands: space -> plan -> trials -> committed results -> MLflow and the table."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2l_study.errors import ROOT_ERRORS, StorageError, UnreadableError, UserError, listed
from d2l_study.options import Options
from d2l_study.study import extension, losses, provenance
from d2l_study.study.cost import Estimate, earlier_rows, estimate, work
from d2l_study.study.data_checks import check_data
from d2l_study.study.existing import show_damaged
from d2l_study.study.failure_report import show_failures, show_undefined
from d2l_study.study.folder import StudyFolder
from d2l_study.study.plan import Checksum, Plan, make_plan
from d2l_study.study.points import configurations
from d2l_study.study.search import Search
from d2l_study.study.search_results import pictures_of, search_summary
from d2l_study.study.search_run import (
    begin_search,
    estimate_search,
    forget_pruned,
    judge_of,
    search_queue,
    show_search,
    typical_work,
    varied_keys,
    write_fixed,
)
from d2l_study.study.space import Configuration, Space, load_space, study_name
from d2l_study.study.storage import open_storage
from d2l_study.study.study_report import NAME as REPORT_NAME
from d2l_study.study.trial import TrialOrder

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.display import Display
    from d2l_study.study.lease import Lease
    from d2l_study.study.tracking import Tracker


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

    @property
    def name(self) -> str:
        return self.folder.name


def prepare(request: Request) -> Study:
    """Read and check everything that can be checked before anything is written: space, data, plan."""
    space = load_space(request.space, request.overrides, request.replicates)
    name = study_name(space) if request.study is None else request.study
    wrong = not name.strip() or any(c in name for c in "/\\") or not name.isprintable() or name.startswith(".")
    if wrong or name != name.strip() or len(name.encode()) > 100:
        raise UserError(
            f"--study {name[:40]!r} is not allowed; expected a name of at most 100 letters without '/' that does not "
            "begin with '.' and holds no invisible letters"
        )
    storage = open_storage(request.root)
    storage.ensure_usable()
    checksums = DataChecksums()
    folder = StudyFolder(storage, name)
    search = Search(space, folder, checksums) if space.adaptive else None
    asked = search.configurations if search else None
    if request.fresh and search is not None:
        raise UserError(
            f"--fresh: not allowed with a search by {space.search and space.search.method}, which is told what the "
            "ledger holds; give it a ledger of its own with --root"
        )
    pruned_by = name if space.schedule != "none" else None
    plan = make_plan(space, checksums, folder.ledger, asked, pruned_by, name if request.fresh else None)
    check_data(plan.configurations or configurations(space, checksums), space)
    return Study(request, space, folder, plan, checksums, search)


class DataChecksums:
    """The checksum of a data section's pool; a damaged or missing file shows here, before any trial."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], str] = {}

    def __call__(self, data: Options) -> str:
        names = getattr(data, "POOL_KEYS", ("dataset", "root", "verify"))
        key = tuple(getattr(data, name, None) for name in names)
        if key not in self._known:
            self._known[key] = data.load_pool().checksum  # type: ignore[attr-defined]
        return self._known[key]


def show_plan(study: Study, list_all: bool = False) -> Estimate:
    """Print what the study will do and how long that takes."""
    space, plan, request = study.space, study.plan, study.request
    show_damaged(study.folder.ledger)
    concurrent = known_slots(space, request)
    if study.search is not None:
        predicted = estimate_search(study, concurrent or 1)
        show_search(study, duration(concurrent, predicted), list_all)
        return predicted
    predicted = estimate(plan, earlier_rows(study.folder.storage), concurrent or 1, space.resources, request.limit)
    todo = plan.trials(request.limit)
    print(f"{study.name}: {space.description}")
    varied = plan.configurations[0].varied
    axes = []
    for name in varied:
        values = {c.values[name]: None for c in plan.configurations if name in c.values}
        axes.append(f"{name} ∈ {{{', '.join(_text(v) for v in values)}}}")
    if space.pairs:
        teachers, students = (list(dict.fromkeys(pair[i] for pair in space.pairs.values())) for i in (0, 1))
        arms = f"teachers: {', '.join(teachers)}; students: {', '.join(students)}"
        arms += f"; references: {', '.join(space.references)}" if space.references else ""
    else:
        arms = f"methods: {', '.join(dict.fromkeys(c.method for c in plan.configurations))}"
    print(f"  {arms}" + (f"; varied: {'; '.join(axes)}" if axes else ""))
    runs = sum(len(t.replicates) for t in todo)
    print(
        f"  {_count(plan.trials_total, 'trial')} × {_count(plan.replicates, 'replicate')} = "
        f"{_count(plan.runs_total, 'run')}: "
        f"{plan.runs_done} there already, {runs} to run now"
        + (f" (--limit: {len(todo)} trials)" if request.limit is not None else "")
    )
    print(f"  {duration(concurrent, predicted)}")
    if list_all:
        for configuration in plan.configurations:
            missing = len(plan.missing(configuration))
            state = "done" if not missing else f"{missing} of {plan.replicates} replicates to run"
            print(f"    {configuration.config_id[:10]}  {configuration.label}: {state}")
    return predicted


def machine() -> tuple[int, int]:
    """The processor cores that this process may use, and this machine's NVIDIA GPUs."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cpus, len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def duration(concurrent: int | None, predicted: Estimate) -> str:
    """The time predicted for so many trials at a time; None: for one at a time on a cluster that is not known yet."""
    if concurrent is None:
        return f"as many trials at a time as the cluster holds; one after the other {predicted.text}"
    return f"{_count(concurrent, 'trial')} at a time: {predicted.text}"


def known_slots(space: Space, request: Request) -> int | None:
    """How many trials would run side by side here, or where a cluster is named what was asked for; None without that:
    a cluster's own number is known once it is joined."""
    if request.address != "local":
        return request.max_concurrent
    cpus, gpus = machine()
    fits = space.resources.slots(cpus, gpus or 1)  # a plan for a GPU can be made anywhere
    return max(1, min(fits, request.max_concurrent or fits))


def check_same(study: Study) -> None:
    """`UserError` if the folder holds another study. A search has been compared when it was read."""
    if study.search is None or not study.search.trials:
        extension.check_same(study.folder, study.plan.entries(), study.space, study.request.extend)


def run_study(request: Request) -> int:
    """Run what is missing of a study; prints plan, progress, table and where to look next. Returns the exit code:
    0, or 1 if a run failed or the root takes no more, or 130 if it was stopped before its end."""
    study = prepare(request)
    folder, space, plan = study.folder, study.space, study.plan
    check_same(study)
    folder.storage.ensure_writable()

    from d2l_study.study.address import check_address
    from d2l_study.study.engine import check_fits
    from d2l_study.study.run_page import study_page
    from d2l_study.study.study_report import report_of
    from d2l_study.study.tracking import AWAY_SECONDS, CLOSING_SECONDS, StoreAway, Tracker, check_uri, resolve_uri

    if request.tracking_uri == "":
        raise UserError("--tracking-uri: empty; expected an address such as http://host:5000 or sqlite:///file.db")
    check_address(request.address)
    if request.address == "local":
        check_fits(space.resources, *machine())
    uri = resolve_uri(request.tracking_uri, folder.storage.root)
    away = False
    try:
        check_uri(uri)
    except StoreAway as error:
        away = True
        if not folder.exists():  # most likely a slip of the pen, which nothing has been lost by yet
            raise
        said = str(error).removesuffix("; is the server running?")
        print(f"warning: {said}; the study goes on without it, and `sync` brings it up to date")

    from d2l_study.study.lease import lease

    with lease(folder) as held:
        origin = provenance.collect()
        forget_pruned(study)
        show_found(study)
        entries = extension.merged(folder, plan.entries())
        known = folder.resolved() if folder.exists() else {}
        resolved = {"space": space.to_dict(), "study": study.name, "provenance": origin,
                    "earlier": provenance.earlier(known, json.loads(json.dumps(origin)))}  # fmt: skip
        if (changes := provenance.local_difference()) is not None:
            folder.storage.put(f"{folder.key}/{changes.name}", changes.patch)
        folder.write(space.text, resolved, entries)
        show_plan(study)
        print(f"  results: {_shown(folder.storage.shown(folder.key))}; MLflow: {uri}", flush=True)
        tracker = Tracker(uri, study.name)
        page = study_page(folder)
        tracker.start(
            page.tags, page.params, page.artifacts, varied=varied_keys(study, page.varied), description=page.description
        )
        stopped = False
        try:
            stopped = _train(study, entries, tracker, page.tags, origin, held)
        except ROOT_ERRORS as error:
            held.end(storage_reason(folder, error))
            stopped = True
        finally:
            try:
                rows = folder.compact()
                if space.keep_weights == "best":
                    keep_best_weights(folder, rows)
            except StorageError as error:
                held.end(storage_reason(folder, error))
                rows = folder.rows()
            except UnreadableError:  # nothing can be said of the study, in MLflow either
                tracker.end("KILLED", {})
                tracker.close()
                raise
            unfinished = int((rows["status"] == "missing").sum())
            if study.search is not None:
                unfinished += study.search.left * plan.replicates
            elif space.search is not None:
                write_fixed(space, folder, study.checksum)
            failed = int((rows["status"] == "failed").sum())
            outcome = "FAILED" if failed else "KILLED" if stopped or unfinished else "FINISHED"
            # Not for one who wants to stop now, or where something else went wrong: `sync` makes it as well.
            pages = None if away or tracker.problems else uri  # a store that does not answer has no pages to link to
            report = {} if stopped or sys.exc_info()[0] else report_of(folder, pages, request.root)
            tracker.end(
                outcome,
                {**(pictures_of(folder) if space.search else {}), **report},
                {"d2l.replicates": f"{int((rows['status'] == 'done').sum())} of {len(rows)}"},
            )
            if not tracker.close(AWAY_SECONDS if away else CLOSING_SECONDS):
                problem = (tracker.problems or "the tracking store is slow").removesuffix(
                    "; the results are in the ledger"
                )
                print(f"warning: MLflow is not up to date ({problem}); the results are safe in the ledger, from which "
                      "`sync` writes them")  # fmt: skip
    return conclude(study, stopped, failed, unfinished, held.reason)


def show_found(study: Study) -> None:
    """Say what there is already: of a study that is taken up again, or for a new one in the ledger."""
    plan, folder = study.plan, study.folder
    if not folder.exists() and plan.runs_done:
        there = [(c, r) for c, done in plan.done.items() for r in done]
        makers = {str(row.get("made_by")) for row in folder.storage.map(lambda run: folder.ledger.row(*run), there)}
        print(f"{study.name}: {_count(plan.runs_done, 'run')} reused, made by {listed(sorted(makers))} (--fresh would "
              "train them again)")  # fmt: skip
    if folder.exists() and study.search is None:
        partly = sum(bool(plan.done.get(t.configuration.config_id)) for t in plan.trials())
        some = f", {partly} in part" if partly else ""
        going = "resuming" if plan.trials() else "nothing left to run"
        print(f"{study.name}: {plan.trials_done} of {plan.trials_total} trials done{some}, {going}")


def storage_reason(folder: StudyFolder, error: BaseException | str) -> str:
    said = getattr(error, "strerror", None) or str(error)
    what = "read from" if isinstance(error, UnreadableError) else "write to"
    return f"cannot {what} {folder.storage.root}: {said}"


def _train(
    study: Study, entries: list[dict[str, Any]], tracker: Tracker, tags: Mapping[str, str], origin: Mapping[str, Any],
    held: Lease,
) -> bool:  # fmt: skip
    """Publish what is there, run what is missing; True if it was stopped before its end."""
    from d2l_study.study.display import Display, stdout
    from d2l_study.study.engine import cluster, run_orders, slots
    from d2l_study.study.node_watch import node_watched
    from d2l_study.study.nodes import check_nodes
    from d2l_study.study.queue import OrderQueue

    space, plan, request, folder = study.space, study.plan, study.request, study.folder
    todo = plan.trials(request.limit)
    waiting = {trial.configuration.config_id for trial in todo}
    there = [entry for entry in entries if entry["config_id"] not in waiting]
    for entry, (rows, artifacts) in zip(there, folder.storage.map(partial(found, folder), there), strict=True):
        if any(row["status"] != "missing" for row in rows):
            tracker.publish(folder, entry, rows, tags, reused_from(rows, study.name), artifacts)
    begin_search(study)
    if not todo and not (study.search is not None and study.search.left):
        return False
    with cluster(request.address) as ray, ended_by_sigterm(held):
        if request.address != "local":
            data = {trial.configuration.data_checksum: trial.configuration.sections["data"] for trial in todo}
            count = check_nodes(ray, folder.storage, [section.to_dict() for section in data.values()])
            print(f"  cluster: {_count(count, 'node')} for trials", flush=True)
        concurrent = slots(ray, space.resources, request)
        if known_slots(space, request) is None:
            print(f"  {_count(concurrent, 'trial')} at a time", flush=True)
        orders, weights = make_orders(study, concurrent, str(origin["code_version"]))
        display = Display(stdout(), weights, concurrent)
        watch = StudyWatch(study, entries, orders, tracker, display, tags, held)
        held.progress = display.progress
        queue = OrderQueue(orders, folder)
        if study.search is not None:
            display.expect(min(study.search.left, request.limit or study.search.left), typical_work(study))

            def make_order(c: Configuration, replicates: Sequence[int]) -> TrialOrder:
                return _order(study, c, replicates, str(origin["code_version"]))

            queue = search_queue(study, orders, concurrent, make_order, watch.added)
        watched = node_watched(ray, held.end) if request.address == "local" else contextlib.nullcontext()
        with display, watched:
            try:
                run_orders(queue, space.resources, concurrent, watch, judge_of(study), held.ending)
            except KeyboardInterrupt:
                return True
        return watch.open_orders > 0


def found(folder: StudyFolder, entry: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a configuration and the artifacts of its page."""
    from d2l_study.study import run_page

    rows = folder.rows_of(entry)
    return rows, run_page.artifacts_of(folder, entry["config_id"], rows)


@contextlib.contextmanager
def ended_by_sigterm(held: Lease) -> Iterator[None]:
    """A batch system that takes the machine away says so first: the study then ends as by `stop`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: held.end("SIGTERM"))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def reused_from(rows: Sequence[Mapping[str, Any]], name: str) -> str | None:
    """The other studies that made these runs."""
    makers = {str(row.get("made_by")) for row in rows if row.get("made_by") not in (None, name)}
    return ", ".join(sorted(makers)) or None


def make_orders(study: Study, concurrent: int, code_version: str) -> tuple[list[TrialOrder], dict[str, float]]:
    """The orders of a study, teachers and then the longest first, and the predicted work of each by its key.

    One order carries all missing replicates of a configuration, unless there are fewer configurations than
    places for trials: then replicates are spread over the places. It makes no difference to any result.
    """
    plan = study.plan
    trials = plan.trials(study.request.limit)
    runs = sum(len(t.replicates) for t in trials)
    # A search is told the mean of all replicates, and a schedule compares it: they stay together.
    whole = len(trials) >= concurrent or study.search is not None or study.space.schedule != "none"
    together = plan.replicates if whole else max(1, math.ceil(runs / concurrent))
    orders: list[tuple[float, TrialOrder]] = []
    for trial in trials:
        c = trial.configuration
        for first in range(0, len(trial.replicates), together):
            replicates = trial.replicates[first : first + together]
            orders.append((work(c) * len(replicates), _order(study, c, replicates, code_version)))
    orders.sort(key=lambda item: (item[1].stage != "teacher", -item[0]))
    return [order for _, order in orders], {order_key(order): weight for weight, order in orders}


def _order(study: Study, c: Configuration, replicates: Sequence[int], code_version: str) -> TrialOrder:
    space = study.space
    return TrialOrder(
        root=str(study.folder.storage.root), study=study.name, config_id=c.config_id, label=c.label, stage=c.stage,
        sections={name: section.to_dict() for name, section in c.sections.items()}, replicates=tuple(replicates),
        base_seed=space.base_seed, checksum=c.data_checksum, resources=space.resources.to_dict(),
        keep_weights="all" if c.teaches else space.keep_weights, code_version=code_version, teachers=c.teachers,
        fresh=study.request.fresh,
    )  # fmt: skip


def order_key(order: TrialOrder) -> str:
    return f"{order.config_id}-{order.replicates[0]}"


class StudyWatch:
    """Hears of trials in the driver: shows them, tells MLflow, and settles a configuration when its last ends."""

    def __init__(
        self, study: Study, entries: Sequence[dict[str, Any]], orders: Sequence[TrialOrder], tracker: Tracker,
        display: Display, tags: Mapping[str, str], held: Lease,
    ) -> None:  # fmt: skip
        self.folder, self.tracker, self.display, self.tags = study.folder, tracker, display, tags
        self._held, self._fail_fast = held, study.request.fail_fast
        self._entries = {entry["config_id"]: entry for entry in entries}
        self._open: dict[str, int] = {}
        self._replicates: dict[str, list[int]] = {}  # of all orders of a configuration
        for order in orders:
            self._open[order.config_id] = self._open.get(order.config_id, 0) + 1
            self._replicates.setdefault(order.config_id, []).extend(order.replicates)
        self._begun: set[str] = set()
        self._typical_work = typical_work(study) if study.search is not None else 0.0

    def added(self, entries: Sequence[dict[str, Any]], orders: Sequence[TrialOrder]) -> None:
        """A search has asked for more: new entries of the plan, and the orders for them."""
        self._entries |= {entry["config_id"]: entry for entry in entries if entry["config_id"] not in self._entries}
        for order in orders:
            self._open[order.config_id] = self._open.get(order.config_id, 0) + 1
            self._replicates.setdefault(order.config_id, []).extend(order.replicates)
            self.display.add(order_key(order), self._typical_work)
        trained = {order.config_id for order in orders}
        for entry in entries:
            if entry["config_id"] not in trained and entry["config_id"] not in self._replicates:
                rows = self.folder.rows_of(entry)  # it was there
                self.tracker.publish(
                    self.folder, entry, rows, self.tags, reused_from=reused_from(rows, self.folder.name)
                )

    @property
    def open_orders(self) -> int:
        return sum(self._open.values())

    def started(self, order: TrialOrder) -> None:
        self.display.started(order_key(order), order)
        if order.config_id not in self._begun:
            self._begun.add(order.config_id)
            self._begin(order)

    def _begin(self, order: TrialOrder) -> None:
        from d2l_study.study import run_page

        entry = self._entries[order.config_id]
        self.tracker.begin(order.config_id, method=entry["method"], stage=entry["stage"], params=entry["values"],
                           tags={**self.tags, **run_page.origin_tags(entry)}, varied=entry["varied"],
                           replicates=self._replicates[order.config_id])  # fmt: skip

    def reported(self, order: TrialOrder, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        areas = [v["val_bag_auc"] for v in values.values() if "val_bag_auc" in v]
        self.display.progressed(order_key(order), step, sum(areas) / len(areas) if areas else math.nan)
        self.display.note = f"MLflow: {self.tracker.problems}" if self.tracker.problems else None
        self.tracker.report(order.config_id, step, values)

    def ended(self, order: TrialOrder) -> None:
        self._settle(order)

    def lost(self, order: TrialOrder, log: str) -> Sequence[TrialOrder]:
        """What is to be run in the place of a lost order; nothing if it was its last attempt."""
        loss = losses.loss_of(log)
        if loss.kind == losses.STORAGE:
            self._held.end(storage_reason(self.folder, loss.cause))
            return [order]
        try:
            again = losses.next_attempt(order, loss, self.folder)
        except ROOT_ERRORS as error:
            self.root_lost(error)
            return [order]
        if not again:
            self._settle(order)
            return []
        self._open[order.config_id] += len(again) - 1
        self.display.again(order_key(order), order, loss.cause, [order_key(piece) for piece in again])
        return again

    def blocked(self, order: TrialOrder) -> None:
        self._settle(order)

    def root_lost(self, error: OSError) -> None:
        self._held.end(storage_reason(self.folder, error))

    def _settle(self, order: TrialOrder) -> None:
        rows = self.folder.rows_of(self._entries[order.config_id])
        mine = [row for row in rows if row["replicate"] in order.replicates]
        areas = [row["val_bag_auc"] for row in mine if row["status"] == "done" and "val_bag_auc" in row]
        failed = sum(row["status"] == "failed" for row in mine)
        self.display.ended(order_key(order), order, failed, sum(areas) / len(areas) if areas else None)
        if failed and self._fail_fast:
            self._held.end(f"--fail-fast, after a run of {order.label} failed")
        self._open[order.config_id] -= 1
        if not self._open[order.config_id]:
            if order.config_id not in self._begun:  # it never ran
                self._begin(order)
            from d2l_study.study import run_page

            artifacts = run_page.artifacts_of(self.folder, order.config_id, rows)
            curves = partial(run_page.reports_of, self.folder, order.config_id, rows)
            self.tracker.finish(order.config_id, rows, artifacts, curves=curves)


def keep_best_weights(folder: StudyFolder, rows: pandas.DataFrame) -> None:
    """Of the weights that this study made, keep those of the best configuration of each arm, by the mean validation
    AUC. Those of teachers of students, and those made by another study, are left alone."""
    teachers = {name for names in rows["teacher_id"].dropna() for name in names.split(",")}
    done = rows[(rows["status"] == "done") & rows["val_bag_auc"].notna() & ~rows["config_id"].isin(teachers)]
    if done.empty:  # stopped before the first result: then there are not even the columns of one
        return
    means = done.groupby(["method", "config_id"])["val_bag_auc"].mean()
    best = {method_and_id[1] for method_and_id in means.groupby("method").idxmax()}
    others = done[(done["made_by"] == folder.name) & ~done["config_id"].isin(best)]
    for config_id, replicate in zip(others["config_id"], others["replicate"], strict=True):
        folder.ledger.drop_file(config_id, replicate, "weights.safetensors")


def conclude(study: Study, stopped: bool, failed: int, unfinished: int, reason: str | None = None) -> int:
    """Print the table, the failures and where to look next; returns the exit code."""
    import analysis
    from analysis.tables import render

    name, root = study.name, study.request.root
    where = "" if root == "runs" else f" --root {shlex.quote(root)}"
    print()
    if study.search is not None and not study.search.trials:
        print("Stopped before the first trial; the same command goes on from here.")
        return 130
    rows = analysis.load(name, root)
    if study.space.search is not None:
        print(search_summary(study.folder, rows), end="")
    elif (rows["status"] != "missing").any():
        print(render(rows, study.space.metric), end="")
    show_undefined(rows)
    show_made_again(study, rows)
    if failed:
        show_failures(study.folder, rows, where)
    if stopped or unfinished:
        left = f"{unfinished} run{'s' if unfinished != 1 else ''} left"
        why = f" ({reason})" if reason else ""
        print(f"\n{'Stopped' if stopped else 'Not finished'}{why}: {left}; the same command goes on from here.")
    broken = reason is not None and reason.startswith(("cannot ", "--fail-fast", "another driver", "Ray's node"))
    code = 1 if broken else 130 if stopped else 1 if failed else 0
    if broken and reason is not None and reason.startswith("cannot "):
        print(f"error: {reason}; what was committed is safe. When that is mended, give the same command.",
              file=sys.stderr)  # fmt: skip
    if not (rows["status"] == "done").any():
        return code or 1
    pairs = " --kind best" if study.space.search else " --kind pairs" if study.space.pairs else ""
    name, picture = shlex.quote(name), shlex.quote(f"{name}.png")
    shown = "val_bag_auc" if study.space.search else "bag_auc" if pairs else "instance_auc"
    print(
        f"\nNext: python -m analysis figure {name}{where}{pairs} --out {picture}\n"
        f"      python -m analysis tables {name}{where} --metric {shown}\n"
        f"      python -m d2l_study ui{where}"
    )
    if study.folder.storage.exists(f"{study.folder.key}/{REPORT_NAME}"):
        print(f"      report: {_shown(study.folder.storage.shown(f'{study.folder.key}/{REPORT_NAME}'))}")
    return code


def show_made_again(study: Study, rows: pandas.DataFrame) -> None:
    """After `--fresh`: whether the runs of other studies came out the same."""
    if not study.request.fresh or "replaces" not in rows:
        return
    again = rows[(rows["made_by"] == study.name) & rows["replaces"].notna()]
    if len(again):
        same = int((again["replaces_difference"] == 0).sum())
        most = again["replaces_difference"].max()
        differing = "" if same == len(again) else f"; the largest difference of a metric is {most:.3g}"
        print(f"\n--fresh: {_count(len(again), 'run')} of other studies trained again, {same} with identical results"
              + differing)  # fmt: skip


def _shown(place: str) -> str:
    try:
        return str(Path(place).relative_to(Path.cwd()))
    except ValueError:
        return place


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
