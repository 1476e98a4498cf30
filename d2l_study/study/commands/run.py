"""`run`: space -> plan -> trials -> committed results -> MLflow and the table."""

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
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.device_line import show_device
from d2l_study.study.commands.early_stopping import early_stopping_rule, forget_pruned
from d2l_study.study.commands.extend import merged_plan, runs_that_leave
from d2l_study.study.commands.fresh_results import forget_fresh_attempts, unfinished_runs
from d2l_study.study.commands.plan_summary import show_existing_results, show_plan
from d2l_study.study.commands.prepare_study import (
    PreparedStudy,
    RunOptions,
    check_same_study,
    known_concurrency,
    on_cluster,
    prepare_study,
)
from d2l_study.study.commands.search_trials import begin_search, search_queue, typical_work, varied_keys
from d2l_study.study.commands.study_callback import StudyCallback, root_error_text
from d2l_study.study.commands.study_summary import show_new_name, show_study_summary
from d2l_study.study.commands.trial_requests import (
    kind_of,
    make_trial_request,
    make_trial_requests,
    trial_key,
    trials_of,
)
from d2l_study.study.ledger import provenance
from d2l_study.study.ledger.best_weights import BEST, BestWeights
from d2l_study.study.ledger.gc_lock import wait_for_collection
from d2l_study.study.ledger.removals import known_here
from d2l_study.study.ledger.storage import short_path
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.search.fixed_search import write_fixed_search
from d2l_study.study.search.restore_configurations import config_content
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.lease import Lease
    from d2l_study.study.mlflow.tracker import Tracker


def run_study(options: RunOptions) -> int:
    """Run what is missing of a study, and print its plan, the progress, the table and where to look next.

    Returns the exit code: 0; 1 if a run failed or the root of results takes no more; 130 if the study was stopped
    before its end. `UserError` for what is wrong with the options, the space or the data, before anything is written.
    """
    study = prepare_study(options)
    folder, space, plan = study.folder, study.space, study.plan
    check_same_study(study)
    show_new_name(study)

    from d2l_study.study.ledger.lease import lease
    from d2l_study.study.mlflow.other_studies import check_no_other_study
    from d2l_study.study.mlflow.study_page import study_page
    from d2l_study.study.mlflow.study_stores import keep_store
    from d2l_study.study.mlflow.tracker import Tracker
    from d2l_study.study.tune.address import check_address
    from d2l_study.study.tune.capacity import check_fits

    if options.tracking_uri == "":
        raise UserError("--tracking-uri: empty; expected an address such as http://host:5000 or sqlite:///file.db")
    check_address(options.address)
    for machine in study.machines.nodes if study.machines is not None else ():
        check_fits(space.resources, machine.cpus, machine.gpus)
    folder.storage.ensure_writable()
    uri, store_is_away = _tracking_store(options, folder)
    known = known_here(folder.storage, folder.name)
    if not folder.exists():
        planned = {configuration.config_id for configuration in plan.configurations}
        check_no_other_study(uri, study.name, lambda config: config in planned or known(config))
    with lease(folder) as held:
        if folder.state() != study.documents:  # another command has trained, pruned or changed it since it was read
            study = prepare_study(options)
            check_same_study(study)
            folder, space, plan = study.folder, study.space, study.plan
        origin = provenance.collect()
        forget_pruned(study)
        forget_fresh_attempts(study)
        show_existing_results(study)
        entries = merged_plan(folder, plan.entries())
        _write_study(study, entries, origin)
        keep_store(folder, uri)
        if wait_for_collection(folder.storage, study.last_collection):  # it may have deleted what the plan counts on
            study = prepare_study(options)
            plan = study.plan
        keep_configurations(study)
        show_plan(study)
        print(f"  results: {short_path(folder.storage.shown(folder.key))}; MLflow: {masked(uri)}", flush=True)
        tracker = Tracker(uri, study.name, ours=lambda: not (held.reason or "").startswith("another driver"))
        page = study_page(folder)
        tracker.start(
            page.tags, page.params, page.artifacts, varied=varied_keys(study, page.varied),
            description=page.description, planned=folder.planned, known=known,
        )  # fmt: skip
        stopped = False
        try:
            stopped = _train(study, entries, tracker, page.tags, origin, held)
        except ROOT_ERRORS as error:
            held.end(root_error_text(folder, error))
            stopped = True
        finally:
            rows = _finish_study(study, held, tracker)
            unfinished = unfinished_runs(study, rows)
            if study.search is not None:
                unfinished += study.search.left * plan.replicates
            failed = int((rows["status"] == "failed").sum())
            _finish_mlflow(study, tracker, rows, failed, unfinished, stopped, None if store_is_away else uri)
    return show_study_summary(study, stopped, failed, unfinished, held.reason)


def _tracking_store(options: RunOptions, folder: StudyFolder) -> tuple[str, bool]:
    """The address of the MLflow store, and whether it is away. A study that exists goes on without its store; a new
    one does not begin (`UserError`): most likely the address is mistyped, and nothing is lost yet."""
    from d2l_study.study.mlflow.address import StoreUnreachable, check_uri, resolve_uri

    uri = resolve_uri(options.tracking_uri, folder.storage.root)
    try:
        check_uri(uri)
    except StoreUnreachable as error:
        if not folder.exists():
            raise
        print(f"warning: {error.reason}; the study goes on without it, and `sync` brings it up to date")
        return uri, True
    return uri, False


def _write_study(study: PreparedStudy, entries: list[dict[str, Any]], origin: Mapping[str, Any]) -> None:
    """Write the study's folder: the space as written and as resolved, the plan's entries, and the provenance."""
    folder, space = study.folder, study.space
    known = folder.resolved_or_empty()
    fresh = study.options.fresh or folder.fresh_of is not None  # what it has trained afresh stays its own
    resolved = {"space": space.to_dict(), "study": study.name, "provenance": origin, "fresh": fresh,
                "earlier": provenance.earlier_commands(known, json.loads(json.dumps(origin)))}  # fmt: skip
    if (changes := provenance.local_difference()) is not None:
        folder.storage.put(f"{folder.key}/{changes.name}", changes.patch)
        folder.keep_private(changes.name)
    left = runs_that_leave(folder, entries)
    folder.write(space.text, resolved, entries)
    for run in left:
        folder.forget_run(*run)


def _finish_study(study: PreparedStudy, held: Lease, tracker: Tracker) -> pandas.DataFrame:
    """Bring the study's folder up to date at the end of the command; returns its rows."""
    folder, space = study.folder, study.space
    try:
        if space.search is not None and study.search is None:
            write_fixed_search(space, folder, study.checksum)
        rows = folder.compact()
        if space.keep_weights == BEST:
            BestWeights(folder).study_ended(rows)
    except StorageError as error:
        held.end(root_error_text(folder, error))
        return folder.rows()
    except UnreadableError:  # then nothing is known of the study, and MLflow can show nothing
        tracker.end("KILLED", {})
        tracker.close()
        raise
    return rows


def _finish_mlflow(
    study: PreparedStudy, tracker: Tracker, rows: pandas.DataFrame, failed: int, unfinished: int, stopped: bool,
    uri: str | None,
) -> None:  # fmt: skip
    """Write the final state of the study's page, with the report. uri: of the store; None if it is away."""
    from d2l_study.study.commands.arm_models import arm_models
    from d2l_study.study.commands.table_and_report import report_of, search_artifacts
    from d2l_study.study.mlflow.study_page import study_metrics, study_tags
    from d2l_study.study.mlflow.tracker import AWAY_SECONDS, CLOSING_SECONDS

    folder, interrupted = study.folder, stopped or sys.exc_info()[0] is not None
    # What --limit leaves for another time is no fault: the command did what it was asked.
    outcome = "FAILED" if failed else "KILLED" if interrupted else "FINISHED"
    # No report for somebody who wants to stop now, or where something else went wrong: `sync` makes it as well.
    records = rows.to_dict("records")
    if not interrupted:
        tracker.keep_models(partial(arm_models, folder, records))  # they are written while the report is drawn
    pages = None if tracker.problems else uri  # a store that does not answer has no pages to link to
    report = {} if interrupted else report_of(folder, pages, study.options.root)
    tracker.end(
        outcome,
        {**(search_artifacts(folder) if study.space.search else {}), **report},
        study_tags(records, unfinished),
        study_metrics(records),
    )
    if not tracker.close(AWAY_SECONDS if uri is None else CLOSING_SECONDS):
        problem = (tracker.problems or "the tracking store is slow").removesuffix("; the results are in the ledger")
        print(f"warning: MLflow is not up to date ({problem}); the results are safe in the ledger, from which "
              "`sync` writes them")  # fmt: skip


def _train(
    study: PreparedStudy, entries: list[dict[str, Any]], tracker: Tracker, tags: Mapping[str, str],
    origin: Mapping[str, Any], held: Lease,
) -> bool:  # fmt: skip
    """Show in MLflow what is there, and train what is missing; returns whether that was stopped before its end."""
    from d2l_study.study.commands.progress_display import ProgressDisplay, stdout
    from d2l_study.study.tune.capacity import concurrent_trials
    from d2l_study.study.tune.cluster import cluster
    from d2l_study.study.tune.machine import cluster_machines
    from d2l_study.study.tune.node_checks import check_nodes
    from d2l_study.study.tune.node_watch import node_watched
    from d2l_study.study.tune.run_trials import run_trials
    from d2l_study.study.tune.trial_queue import TrialQueue

    plan, options, folder = study.plan, study.options, study.folder
    todo = plan.trials(options.limit)
    missing = {trial.configuration.config_id for trial in todo}
    there = [entry for entry in entries if entry["config_id"] not in missing]
    for entry, (rows, artifacts) in zip(
        there, folder.storage.map(partial(_rows_and_artifacts, folder), there), strict=True
    ):
        if any(row["status"] != "missing" for row in rows):
            tracker.publish(folder, entry, rows, tags, artifacts)
    begin_search(study)
    if study.space.search is not None and study.search is None:
        write_fixed_search(study.space, folder, study.checksum)
    if not todo and not (study.search is not None and study.search.left):
        return False
    where = "" if options.address == "local" else f" at {options.address}"
    print(f"  {'joining' if where else 'starting'} Ray{where} …", flush=True)
    with cluster(options.address) as ray, stopped_by_signals(held):
        if options.address != "local":
            data = {trial.configuration.data_checksum: trial.configuration.sections["data"] for trial in todo}
            unusable = check_nodes(ray, folder.storage, [section.to_dict() for section in data.values()])
            print(f"  cluster: {counted(len(unusable), 'node')} for trials", flush=True)
            study = on_cluster(study, cluster_machines(ray, unusable))
            show_device(study)
        resources = study.space.resources
        concurrent = concurrent_trials(ray, resources, options.address, options.max_concurrent)
        if known_concurrency(study) is None:
            print(f"  {counted(concurrent, 'trial')} at a time", flush=True)
        requests, weights = make_trial_requests(study, concurrent, str(origin["code_version"]))
        kinds = {trial_key(r): kind_of(r) for r in requests}
        whole = study.search is None and options.limit is None  # else the command has a number of trials of its own
        display = ProgressDisplay(stdout(), weights, concurrent, kinds, plan.trials_done if whole else 0)
        callback = StudyCallback(study, entries, requests, tracker, display, tags, held)
        held.progress = display.progress
        queue = TrialQueue(trials_of(study, requests, concurrent), folder)
        if study.search is not None:
            display.expect_trials(min(study.search.left, options.limit or study.search.left), typical_work(study))

            def make_request(c: Configuration, replicates: Sequence[int]) -> TrialRequest:
                return make_trial_request(study, c, replicates, str(origin["code_version"]))

            queue = search_queue(study, requests, concurrent, make_request, callback.add_trials)
        with display, node_watched(ray, held.end):
            try:
                rule = early_stopping_rule(study)
                run_trials(queue, resources, concurrent, callback, rule, held.ending)
            except KeyboardInterrupt:
                return True
        # A search that was ended between two trials has none open, and others that it would have asked for.
        return callback.open_trials > 0 or (held.ending.is_set() and len(queue) > 0)


def keep_configurations(study: PreparedStudy) -> None:
    """Write to the ledger, before anything is trained, what every id of the plan stands for (again, if it was lost),
    and that this study's students need the weights of their teachers, whichever study trains these."""
    ledger, plan, fresh_of = study.folder.ledger, study.plan, study.folder.fresh_of

    def keep(c: Configuration) -> None:
        ledger.write_config(c.config_id, config_content(c, study.name))
        for replicate in range(plan.replicates) if c.teaches else ():
            ledger.need_weights(c.config_id, replicate, study.name)

    ledger.storage.map(keep, {c.config_id: c for c in plan.configurations}.values())
    plan.undo_teachers_without_weights(ledger, fresh_of)  # those that were dropped since the plan was made


def _rows_and_artifacts(folder: StudyFolder, entry: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of a configuration of the plan, and the artifacts of its MLflow page."""

    rows = folder.rows_of(entry)
    return rows, artifacts_of(folder, entry["config_id"], rows)


@contextlib.contextmanager
def stopped_by_signals(held: Lease) -> Iterator[None]:
    """End the study within the block as by `stop` when a signal comes.

    A batch system sends SIGTERM before it takes the machine away. Ctrl-C raises an exception all the same, but Python
    drops an exception that is raised in a callback of C code.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        held.end("Ctrl-C")
        raise KeyboardInterrupt

    handlers = {signal.SIGTERM: lambda number, frame: held.end("SIGTERM")}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as in a background job of a script
        handlers[signal.SIGINT] = interrupt
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
