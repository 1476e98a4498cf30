"""Trials that a schedule ends early: the rule that the driver follows within one `run`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from d2l_study.errors import DamagedError
from d2l_study.study.ledger.run_files import CURVE
from d2l_study.study.ledger.timestamps import timestamp
from d2l_study.study.search.pruning import METRIC, Pruner
from d2l_study.study.search.trial import once_complete
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.keys import scientific
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    from d2l_study.study.commands.prepare_study import PreparedStudy
    from d2l_study.study.ledger.ledger import Ledger
    from d2l_study.study.ledger.study_folder import StudyFolder
    from d2l_study.study.tune.run_trials import EarlyStoppingRule


def early_stopping_rule(study: PreparedStudy) -> EarlyStoppingRule | None:
    """The rule of the space's `schedule`; None without one. It records the runs of a trial that it ends as pruned.

    The rule begins with the curves of all trials that are done or were ended early, so that a study that goes on
    decides as it did before. Not ended early are configurations that were complete once, or of which a replicate was
    trained to its end and none was ended early: with all others known by now they would be judged more hardly.
    """
    if study.space.schedule == "none":
        return None
    pruner, ledger, folder = Pruner(study.space.schedule), study.folder.ledger, study.folder
    added: set[str] = set()
    heard_of: set[tuple[str, tuple[int, ...]]] = set()  # requests with a report
    complete = once_complete(folder)

    def add_trial(c: Configuration) -> None:
        added.add(c.config_id)
        own = c.sections[study.space.stage].to_dict()
        group = json.dumps([c.method, scientific(c.sections["data"])], sort_keys=True)
        pruner.add_trial(c.config_id, group, own["steps"] * own.get("generations", 1))

    for c in study.plan.configurations:
        if c.stage != study.space.stage or c.config_id in added:
            continue
        add_trial(c)
        statuses = set()
        for replicate in range(study.plan.replicates):
            if (status := _trained_status(study, c.config_id, replicate)) is not None:
                pruner.add_points(c.config_id, replicate, _curve(folder, c.config_id, replicate), done=True)
                statuses.add(status)
            elif (ended := ledger.pruned(c.config_id, replicate, folder.name)) is not None:
                pruner.add_points(c.config_id, replicate, ended["curve"])
                statuses.add("pruned")
        if "done" in statuses and "pruned" not in statuses:
            complete.add(c.config_id)

    def take_up(request: TrialRequest, step: int) -> None:
        """Let the pruner know what a trial was before the checkpoints from which it goes on with a report at `step`."""
        for replicate in request.replicates:
            curve = _saved_curve(ledger, request.config_id, replicate, request.made_by)
            pruner.add_points(request.config_id, replicate, curve)
        pruner.pass_rungs(request.config_id, report_before(request, step))

    def ends(request: TrialRequest, step: int, values: Mapping[int, Mapping[str, float]]) -> bool:
        if request.stage != study.space.stage:
            return False  # a teacher whose students wait for it, or a reference
        if request.config_id in complete:
            return False  # it is trained again, to the end that it had
        if request.config_id not in added:  # a search has asked for it since
            assert study.search is not None
            add_trial(next(c for c in study.search.configurations if c.config_id == request.config_id))
        if (request.config_id, request.replicates) not in heard_of:
            heard_of.add((request.config_id, request.replicates))
            if step > request.interval or values.keys() < set(request.replicates):
                take_up(request, step)
        cause = pruner.reason_to_stop(request.config_id, request.replicates, step, values)
        if cause is None:
            return False
        found = pruner.curve(request.config_id)
        for replicate in request.replicates:
            points = found.points.get(replicate, {})
            ledger.write_pruned(request.config_id, replicate, folder.name, {
                "cause": cause, "step": step, "value": found.best(step / found.steps), "at": timestamp(),
                "curve": [{"step": s, METRIC: v} for s, v in sorted(points.items())],
            })  # fmt: skip
        return True

    return ends


def forget_pruned(study: PreparedStudy) -> None:
    """If the study has no schedule any more, let trials that an earlier command ended early be trained to their end."""
    folder = study.folder
    if study.space.schedule == "none" and folder.exists():
        if folder.resolved_or_empty().get("space", {}).get("schedule", "none") == "none":
            return
        # Those of other replicates too: nothing asks for them now, but a later command may.
        runs = [(entry["config_id"], r) for entry in folder.plan_or_empty() for r in entry["replicates"]]
        folder.storage.map(lambda run: folder.ledger.forget_pruned(*run, folder.name), runs)


def _trained_status(study: PreparedStudy, config: str, replicate: int) -> str | None:
    """The status of a committed run; None if there is none, or if this command trains it again (`--fresh`)."""
    record = study.folder.ledger.read(config, replicate, study.folder.fresh_of)
    if record is None or (study.options.fresh and record["row"].get("made_by") != study.name):
        return None
    return str(record["row"]["status"])


def report_before(request: TrialRequest, step: int) -> int:
    """The step of the report before that at `step`, both counted over all generations; 0 if that is the first one."""
    own = request.sections[request.stage]
    generation, within = divmod(step - 1, own["steps"])
    return int(generation * own["steps"] + within // own["eval_every"] * own["eval_every"])


def _saved_curve(ledger: Ledger, config: str, replicate: int, owner: str | None) -> list[dict[str, float]]:
    """The curve of a run up to its last checkpoint; empty if there is none that can be read."""
    from d2l_study.learning.training import saved_curve

    state = ledger.load_checkpoint(config, replicate, owner)
    try:
        return [] if state is None else saved_curve(state)
    except Exception:  # torch, pickle and zipfile each raise their own; then the run has begun anew
        return []


def _curve(folder: StudyFolder, config: str, replicate: int) -> list[dict[str, Any]]:
    """The validation curve of a committed run; empty if it is lost."""
    try:
        return json.loads(folder.read_file(config, replicate, CURVE))
    except (KeyError, FileNotFoundError, DamagedError):
        return []
