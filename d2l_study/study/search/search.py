"""The search of a study, which asks for points and is told their results.

Each arm is searched by itself at each point of its axes, with the same number of trials, so that every arm is tuned
equally. The study keeps its search in `search.json`:

    definition   method, metrics, goals, startup, base_seed, data_checksum, science_version, and `searches`: of each
                 its arm, `at` (its point of the axes), `distributions` and `fixed` values; `enqueue` if there are start
                 points, with which the first trials of each search begin
    trials       a list in the order of asking:
      number     0 … over the whole study; `search`, `trial`: which search, and its own count within it
      arm, at    as in the definition
      params     "section.key" -> value; config_id, trial_id, label: of the configuration that was trained
      state      asked | complete | failed | pruned
      values     of the metrics, in their order, means over `replicates` (their number); null unless complete
      cause      why it failed or was ended early; `partial`: [step, validation AUC] at which it was
      asked, told   when it was asked for and when its result was told first, counted in events of its search

The results are in the ledger, and the trials of the document are brought up to date with them. A point that was asked
for before gets the result of that trial, and counts as a trial.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from d2l_study.errors import DamagedError, UserError
from d2l_study.study.ledger.search_document import DOCUMENT, LOST, read_document, write_document
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, trial_configurations, varied_keys_of
from d2l_study.study.search.arm_search import arm_searches
from d2l_study.study.search.definition import definition_differences, definition_of
from d2l_study.study.search.samplers import ObservedTrial, Sampler
from d2l_study.study.search.trial import COMPLETE, OPEN, Outcome, SearchTrial, trial_outcome
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.keys import TEACHING, plain
from d2l_study.study.space.search_options import ADAPTIVE
from d2l_study.study.space.space import Space


def check_no_search_that_learns(folder: StudyFolder, space: Space) -> None:
    """`UserError` for a space whose search knows its points beforehand, in a study of a search that learns: its record
    would take the place of what the other has asked for."""
    document = None if space.search is None or space.adaptive else read_document(folder)
    method = document and document["definition"].get("method")
    if space.search is not None and method in ADAPTIVE:
        raise _started_otherwise(folder, "search", [f"method: {method} -> {space.search.method}"])


def _started_otherwise(folder: StudyFolder, what: str, lines: Sequence[str]) -> UserError:
    """lines: the differences, one key to a line."""
    return UserError(
        f"study {folder.name!r} was started with another {what}:\n"
        + "".join(f"  {line}\n" for line in lines)
        + "A search learns from its own trials only. To keep both, give the new one a name of its own: "
        "--study NEWNAME (runs that both contain are reused)"
    )


class Search:
    """The search of a study. `UserError` if the study was started with another search.

    arm_searches: in order, a trial's `search` is an index into them; trials: in the order of asking.
    """

    def __init__(self, space: Space, folder: StudyFolder, checksum: Checksum) -> None:
        assert space.search is not None and space.adaptive
        self.space, self.folder, self.options = space, folder, space.search
        self.arm_searches = arm_searches(space)
        self.varied_keys = varied_keys_of(space, checksum)
        self._checksum = checksum
        self._samplers = [
            Sampler(self.options.method, p.distributions, self.options.goals, self.options.startup, space.base_seed,
                    p.label, self.options.enqueue)
            for p in self.arm_searches
        ]  # fmt: skip
        self._built: dict[tuple[Any, ...], Any] = {}
        self.definition = definition_of(space, self.arm_searches, self.varied_keys, checksum)
        self.trials: list[SearchTrial] = []
        self._read()

    # ---- the document
    def _read(self) -> None:
        document = read_document(self.folder)
        if document is None:
            if any(entry["stage"] == self.space.stage for entry in self.folder.plan_or_empty()):
                self._refuse_without_document()
            return
        lines = definition_differences(document["definition"], json.loads(json.dumps(self.definition)))
        if lines:
            raise _started_otherwise(self.folder, "search", lines)
        names = set(SearchTrial.__dataclass_fields__) - {"configurations"}
        for entry in document["trials"]:
            trial = SearchTrial(**{k: v for k, v in entry.items() if k in names})
            trial.configurations = self._configurations(trial.search, trial.params)
            self.trials.append(trial)

    def _refuse_without_document(self) -> None:
        """Raise what is wrong with a study that has a plan and no document of a search."""
        space = self.folder.resolved_or_empty().get("space")
        method = ((space or {}).get("search") or {}).get("method")
        if space and method not in ADAPTIVE:
            raise _started_otherwise(
                self.folder, "plan", [f"search.method: {method or '(none)'} -> {self.options.method}"]
            )
        shown = self.folder.storage.shown(f"{self.folder.key}/{DOCUMENT}")
        raise DamagedError(f"{shown}: missing, though the study has a plan; {LOST}")

    def save(self) -> None:
        """Write the document."""
        write_document(self.folder, self.definition, [trial.to_dict() for trial in self.trials])

    # ---- what there is
    @property
    def configurations(self) -> list[Configuration]:
        """The configurations of all trials so far, teachers first, each once in an arm."""
        found: dict[tuple[str, str], Configuration] = {}
        for trial in self.trials:
            for c in trial.configurations:
                found.setdefault((c.method, c.config_id), c)
        return sorted(found.values(), key=lambda c: c.stage not in TEACHING)

    @property
    def open(self) -> list[SearchTrial]:
        """Trials whose results have not been told."""
        return [trial for trial in self.trials if trial.state == OPEN]

    @property
    def budget(self) -> int:
        """The number of trials of all searches."""
        return sum(arm_search.trials for arm_search in self.arm_searches)

    @property
    def left(self) -> int:
        """Trials that are still to be asked."""
        return sum(self._left(i) for i in range(len(self.arm_searches)))

    def _left(self, search: int) -> int:
        return max(0, self.arm_searches[search].trials - sum(t.search == search for t in self.trials))

    def _configurations(self, search: int, params: Mapping[str, Any]) -> list[Configuration]:
        arm_search = self.arm_searches[search]
        values = {
            place: params[".".join(place)] if isinstance(v, Distribution) else v
            for place, v in arm_search.values.items()
        }
        sections = self.space.resolve(values, self._built)
        return trial_configurations(self.space, self.varied_keys, arm_search.arm, sections, self._checksum)

    # ---- asking and telling
    def ask(self) -> SearchTrial | None:
        """The next trial, of the search with the fewest trials; None if all have been asked for. The document is
        written before the trial is returned, so that it is the same trial after a kill."""
        waiting = [i for i in range(len(self.arm_searches)) if self._left(i)]
        if not waiting:
            return None
        counts = {i: sum(t.search == i for t in self.trials) for i in waiting}
        search = min(waiting, key=lambda i: (counts[i], i))
        arm_search, mine = self.arm_searches[search], [t for t in self.trials if t.search == search]
        params = self._samplers[search].propose(len(mine), [_observed(t) for t in mine])
        configurations = self._configurations(search, params)
        trial = SearchTrial(
            len(self.trials), search, len(mine), arm_search.arm, plain(arm_search.at), plain(params),
            configurations[-1].config_id, configurations[-1].label, _events(mine), configurations=configurations,
        )  # fmt: skip
        self.trials.append(trial)
        self.save()
        return trial

    def tell_ended(self, replicates: Mapping[str, Sequence[int]], config: str | None = None) -> list[SearchTrial]:
        """Tell the results of open trials whose runs have all ended, as the ledger has them; returns these trials.

        replicates: config_id -> the planned ones; config: only trials of this configuration.
        """
        told = []
        for trial in self.open:
            if config is not None and trial.config_id != config:
                continue
            outcome = trial_outcome(self.folder, trial.config_id, replicates[trial.config_id], self.options.names)
            if outcome is not None:
                self._tell(trial, outcome, len(replicates[trial.config_id]))
                told.append(trial)
        if told:
            self.save()
        return told

    def _tell(self, trial: SearchTrial, outcome: Outcome, replicates: int) -> None:
        trial.once_complete |= trial.state == COMPLETE != outcome[0]
        trial.state, trial.values, trial.cause, trial.partial = outcome
        trial.replicates = replicates if trial.state == COMPLETE else None
        if trial.told is None:  # one that was opened again stands where its first result stood
            trial.told = _events([t for t in self.trials if t.search == trial.search])

    def judge(self, replicates: int) -> None:
        """Bring all trials up to date with the ledger. The document is not written.

        replicates: how many of each trial are asked for now. Trials that are complete with as many stay as they are."""
        due = [t for t in self.trials if t.state != COMPLETE or t.replicates != replicates]
        outcomes = self.folder.storage.map(
            lambda t: trial_outcome(self.folder, t.config_id, range(replicates), self.options.names), due
        )
        for trial, outcome in zip(due, outcomes, strict=True):
            if outcome is not None:
                self._tell(trial, outcome, replicates)

    def reopen(self, missing: Collection[str]) -> None:
        """Open trials again whose runs are to be trained: for more replicates, or another attempt. The document is not
        written. missing: config_ids."""
        for trial in (t for t in self.trials if t.state != OPEN and t.config_id in missing):
            trial.once_complete |= trial.state == COMPLETE
            trial.state, trial.values, trial.cause, trial.partial, trial.replicates = OPEN, None, None, None, None


def _events(trials: Sequence[SearchTrial]) -> int:
    """The number of the next event of a search."""
    return 1 + max((max(t.asked, t.told if t.told is not None else -1) for t in trials), default=-1)


def _observed(trial: SearchTrial) -> ObservedTrial:
    partial = (int(trial.partial[0]), trial.partial[1]) if trial.partial else None
    return ObservedTrial(trial.trial, trial.params, trial.state, trial.values, trial.asked, trial.told, partial)
