"""The `run` and `plan` commands: space -> plan -> trials -> committed results -> MLflow and the table."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from d2l_study.credentials import masked
from d2l_study.errors import ROOT_ERRORS, StorageError, UnreadableError, UserError, counted
from d2l_study.study.commands import extend
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.plan_summary import show_found, show_plan
from d2l_study.study.commands.request import Request, Study, check_same, known_slots, machine, prepare
from d2l_study.study.commands.search_run import (
    begin_search,
    forget_pruned,
    judge_of,
    search_queue,
    typical_work,
    varied_keys,
    write_fixed,
)
from d2l_study.study.commands.study_callback import StudyWatch, reused_from, storage_reason
from d2l_study.study.commands.study_summary import conclude
from d2l_study.study.commands.trial_requests import make_orders, order_of
from d2l_study.study.ledger import provenance
from d2l_study.study.ledger.best_weights import BEST, BestWeights
from d2l_study.study.ledger.gc_flag import waited_for_collection
from d2l_study.study.ledger.storage import short_path
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.search.restore import content_of
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    from d2l_study.study.ledger.lease import Lease
    from d2l_study.study.mlflow.tracking import Tracker


def run_study(request: Request) -> int:
    """Run what is missing of a study; prints plan, progress, table and where to look next. Returns the exit code:
    0, or 1 if a run failed or the root takes no more, or 130 if it was stopped before its end."""
    study = prepare(request)
    folder, space, plan = study.folder, study.space, study.plan
    check_same(study)

    from d2l_study.study.commands.table_and_report import report_of, search_artifacts
    from d2l_study.study.mlflow.run_page import study_metrics, study_page, study_tags
    from d2l_study.study.mlflow.tracking import (
        AWAY_SECONDS,
        CLOSING_SECONDS,
        StoreAway,
        Tracker,
        check_uri,
        resolve_uri,
    )
    from d2l_study.study.tune.address import check_address
    from d2l_study.study.tune.engine import check_fits

    if request.tracking_uri == "":
        raise UserError("--tracking-uri: empty; expected an address such as http://host:5000 or sqlite:///file.db")
    check_address(request.address)
    if request.address == "local":
        check_fits(space.resources, *machine())
    folder.storage.ensure_writable()
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

    from d2l_study.study.ledger.lease import lease

    with lease(folder) as held:
        origin = provenance.collect()
        forget_pruned(study)
        show_found(study)
        entries = extend.merged(folder, plan.entries())
        known = folder.known_resolved()
        fresh = request.fresh or folder.fresh_of is not None  # what it trained again stays its own
        resolved = {"space": space.to_dict(), "study": study.name, "provenance": origin, "fresh": fresh,
                    "earlier": provenance.earlier(known, json.loads(json.dumps(origin)))}  # fmt: skip
        if (changes := provenance.local_difference()) is not None:
            folder.storage.put(f"{folder.key}/{changes.name}", changes.patch)
            folder.keep_private(changes.name)
        folder.write(space.text, resolved, entries)
        if waited_for_collection(
            folder.storage, study.collected
        ):  # it may have deleted what was there when the plan was made
            study = prepare(request)
            plan = study.plan
        keep_configurations(study)
        show_plan(study)
        print(f"  results: {short_path(folder.storage.shown(folder.key))}; MLflow: {masked(uri)}", flush=True)
        tracker = Tracker(uri, study.name, ours=lambda: not (held.reason or "").startswith("another driver"))
        page = study_page(folder)
        tracker.start(
            page.tags, page.params, page.artifacts, varied=varied_keys(study, page.varied),
            description=page.description, planned=folder.planned,
        )  # fmt: skip
        stopped = False
        try:
            stopped = _train(study, entries, tracker, page.tags, origin, held)
        except ROOT_ERRORS as error:
            held.end(storage_reason(folder, error))
            stopped = True
        finally:
            try:
                if space.search is not None and study.search is None:
                    write_fixed(space, folder, study.checksum)
                rows = folder.compact()
                if space.keep_weights == BEST:
                    BestWeights(folder).all_ended(rows)
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
            failed = int((rows["status"] == "failed").sum())
            # What --limit leaves for another time is no fault: the command did what it was asked.
            outcome = "FAILED" if failed else "KILLED" if stopped or sys.exc_info()[0] else "FINISHED"
            # Not for one who wants to stop now, or where something else went wrong: `sync` makes it as well.
            pages = None if away or tracker.problems else uri  # a store that does not answer has no pages to link to
            report = {} if stopped or sys.exc_info()[0] else report_of(folder, pages, request.root)
            tracker.end(
                outcome,
                {**(search_artifacts(folder) if space.search else {}), **report},
                study_tags(rows.to_dict("records"), unfinished),
                study_metrics(rows.to_dict("records")),
            )
            if not tracker.close(AWAY_SECONDS if away else CLOSING_SECONDS):
                problem = (tracker.problems or "the tracking store is slow").removesuffix(
                    "; the results are in the ledger"
                )
                print(f"warning: MLflow is not up to date ({problem}); the results are safe in the ledger, from which "
                      "`sync` writes them")  # fmt: skip
    return conclude(study, stopped, failed, unfinished, held.reason)


def _train(
    study: Study, entries: list[dict[str, Any]], tracker: Tracker, tags: Mapping[str, str], origin: Mapping[str, Any],
    held: Lease,
) -> bool:  # fmt: skip
    """Publish what is there, run what is missing; True if it was stopped before its end."""
    from d2l_study.study.commands.progress_display import Display, stdout
    from d2l_study.study.tune.cluster import cluster
    from d2l_study.study.tune.engine import run_orders, slots
    from d2l_study.study.tune.node_watch import node_watched
    from d2l_study.study.tune.nodes import check_nodes
    from d2l_study.study.tune.queue import OrderQueue

    space, plan, request, folder = study.space, study.plan, study.request, study.folder
    todo = plan.trials(request.limit)
    waiting = {trial.configuration.config_id for trial in todo}
    there = [entry for entry in entries if entry["config_id"] not in waiting]
    for entry, (rows, artifacts) in zip(there, folder.storage.map(partial(found, folder), there), strict=True):
        if any(row["status"] != "missing" for row in rows):
            tracker.publish(folder, entry, rows, tags, artifacts, reused_from(rows, study.name))
    begin_search(study)
    if space.search is not None and study.search is None:
        write_fixed(space, folder, study.checksum)
    if not todo and not (study.search is not None and study.search.left):
        return False
    where = "" if request.address == "local" else f" at {request.address}"
    print(f"  {'joining' if where else 'starting'} Ray{where} …", flush=True)
    with cluster(request.address) as ray, ended_by_signals(held):
        if request.address != "local":
            data = {trial.configuration.data_checksum: trial.configuration.sections["data"] for trial in todo}
            count = check_nodes(ray, folder.storage, [section.to_dict() for section in data.values()])
            print(f"  cluster: {counted(count, 'node')} for trials", flush=True)
        concurrent = slots(ray, space.resources, request.address, request.max_concurrent)
        if known_slots(space, request) is None:
            print(f"  {counted(concurrent, 'trial')} at a time", flush=True)
        orders, weights = make_orders(study, concurrent, str(origin["code_version"]))
        display = Display(stdout(), weights, concurrent)
        watch = StudyWatch(study, entries, orders, tracker, display, tags, held)
        held.progress = display.progress
        queue = OrderQueue(orders, folder)
        if study.search is not None:
            display.expect(min(study.search.left, request.limit or study.search.left), typical_work(study))

            def make_order(c: Configuration, replicates: Sequence[int]) -> TrialRequest:
                return order_of(study, c, replicates, str(origin["code_version"]))

            queue = search_queue(study, orders, concurrent, make_order, watch.added)
        with display, node_watched(ray, held.end):
            try:
                run_orders(queue, space.resources, concurrent, watch, judge_of(study), held.ending)
            except KeyboardInterrupt:
                return True
        return watch.open_orders > 0


def keep_configurations(study: Study) -> None:
    """Before anything is trained: what every id of the plan stands for is kept, again if it was lost, and that the
    students of this study need the weights of their teachers, whichever study trains or has trained these."""
    ledger, plan = study.folder.ledger, study.plan

    def keep(c: Configuration) -> None:
        ledger.write_config(c.config_id, content_of(c, study.name))
        for replicate in range(plan.replicates) if c.teaches else ():
            ledger.need_weights(c.config_id, replicate, study.name)
            if replicate in plan.done.get(c.config_id, ()) and not ledger.has_weights(c.config_id, replicate):
                plan.done[c.config_id].discard(replicate)  # another study has dropped them since the plan was made

    ledger.storage.map(keep, {c.config_id: c for c in plan.configurations}.values())


def found(folder: StudyFolder, entry: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a configuration and the artifacts of its page."""
    rows = folder.rows_of(entry)
    return rows, artifacts_of(folder, entry["config_id"], rows)


@contextlib.contextmanager
def ended_by_signals(held: Lease) -> Iterator[None]:
    """A batch system that takes the machine away says so first (SIGTERM): the study then ends as by `stop`. So it does
    by Ctrl-C where the exception of that is lost: Python drops those that are raised in a callback of C code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        held.end("Ctrl-C")
        raise KeyboardInterrupt

    heard = {signal.SIGTERM: lambda number, frame: held.end("SIGTERM")}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job of a script
        heard[signal.SIGINT] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
