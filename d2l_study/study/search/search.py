"""A search: which points were asked, what was told of them, and which to ask next (architecture, decisions 3 and 4).

Each arm is searched by itself at each point of its axes, with the same number of trials, so that every arm is tuned
equally. All of it is in one document of the study's folder, `search.json`:

    definition   method, metrics, goals, startup, base_seed, data_checksum, science_version, and `searches`: of each
                 its arm, `at` (its point of the axes), `distributions` and `fixed` values
    trials       a list in the order of asking:
      number     0 … over the whole study; `search`, `trial`: which search, and its own count within it
      arm, at    as in the definition
      params     "section.key" -> value; config_id, trial_id, label: of the configuration that was trained
      state      asked | complete | failed | pruned
      values     of the metrics, in their order, means over replicates; null unless complete
      cause      why it failed or was ended early; `partial`: [step, validation AUC] at which it was
      asked, told   when, counted in events of its search

The ledger stays the truth: whatever the document says of a trial is brought up to date from the runs. A duplicate of
an earlier point is told the value of that one, and counts as a trial.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from d2l_study.errors import DamagedError, UserError
from d2l_study.learning.science_version import FIRST, version_of_keys
from d2l_study.options import field_of
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.search_document import DOCUMENT, LOST, read_document, write_document
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, frame_of, trial_configurations
from d2l_study.study.search.samplers import Sampler, Told
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.keys import Key, plain, scientific, section_class
from d2l_study.study.space.space import Space

OPEN, COMPLETE, FAILED, PRUNED = "asked", "complete", "failed", "pruned"


@dataclass(frozen=True)
class Problem:
    """What is searched: one arm at one point of its axes. values: (section, key) -> value or distribution."""

    arm: str
    at: dict[str, Any]
    values: dict[Key, Any]
    trials: int

    @property
    def distributions(self) -> dict[str, Distribution]:
        return {".".join(place): v for place, v in self.values.items() if isinstance(v, Distribution)}

    @property
    def label(self) -> str:
        return search_name(self.arm, self.at)


def search_name(arm: str, at: Mapping[str, Any]) -> str:
    """The name of a search: its arm, then its point of the axes, as in `vat num_bags=50`."""
    return " ".join([arm, *(f"{key.split('.')[-1]}={value}" for key, value in at.items())])


@dataclass
class Trial:
    """One point that was asked; the fields are those of the document."""

    number: int
    search: int
    trial: int
    arm: str
    at: dict[str, Any]
    params: dict[str, Any]
    config_id: str
    label: str
    asked: int
    state: str = OPEN
    values: list[float] | None = None
    cause: str | None = None
    partial: list[float] | None = None
    told: int | None = None
    once_complete: bool = False
    """It had come to its end when some of its runs were lost or more were asked for: those are trained to theirs."""
    configurations: list[Configuration] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        found = {k: v for k, v in vars(self).items() if k != "configurations"}
        return {**found, "trial_id": trial_id(self.config_id)}


def problems_of(space: Space) -> list[Problem]:
    """The searches of a space; an arm without a distribution is one point, trained once."""
    assert space.search is not None
    found = []
    for method in space.methods:
        axes = [(s, k) for s, keys in space.arm_keys(method).items() for k, v in keys.items() if isinstance(v, tuple)]
        for values in space.grid(method):
            searched = any(isinstance(v, Distribution) for v in values.values())
            at = {".".join(place): values[place] for place in axes}
            found.append(Problem(method, at, values, space.search.trials if searched else 1))
    return found


class Search:
    """The search of a study: asks, is told, and keeps its document. `UserError` if the folder holds another search."""

    def __init__(self, space: Space, folder: StudyFolder, checksum: Checksum) -> None:
        assert space.search is not None and space.adaptive
        self.space, self.folder, self.options = space, folder, space.search
        self.problems = problems_of(space)
        self.frame = frame_of(space, checksum)
        self._checksum = checksum
        self._samplers = [
            Sampler(self.options.method, p.distributions, self.options.goals, self.options.startup, space.base_seed,
                    p.label)
            for p in self.problems
        ]  # fmt: skip
        self._built: dict[tuple[Any, ...], Any] = {}
        self.definition = self._definition()
        self.trials: list[Trial] = []
        self._read()

    # ---- the document
    def _definition(self) -> dict[str, Any]:
        searches: list[dict[str, Any]] = []
        sums: dict[str, None] = {}
        version = FIRST
        for problem in self.problems:
            first = {
                place: v.draw(".".join(place), self.space.base_seed, 0) if isinstance(v, Distribution) else v
                for place, v in problem.values.items()
            }
            sections = self.space.resolve(first, self._built)
            (*_, target) = trial_configurations(self.space, self.frame, problem.arm, sections, self._checksum)
            sums[target.data_checksum] = None
            version = max(version, target.science_version, version_of_keys(problem.distributions))
            fixed = {
                f"{name}.{key}": value
                for name, section in sections.items()
                for key, value in scientific(section).items()
                if f"{name}.{key}" not in problem.distributions
            }
            found = {key: d.to_dict() for key, d in problem.distributions.items()}
            searches.append({"arm": problem.arm, "at": plain(problem.at), "distributions": found, "fixed": fixed})
        return {
            "method": self.options.method, "metrics": list(self.options.names), "goals": list(self.options.goals),
            "startup": self.options.startup, "oracle": self.options.sees_labels, "base_seed": self.space.base_seed,
            "data_checksum": ", ".join(sums), "science_version": version, "searches": searches,
        }  # fmt: skip

    def _read(self) -> None:
        document = read_document(self.folder)
        if document is None:
            if any(entry["stage"] == self.space.stage for entry in self.folder.plan_or_empty()):
                shown = self.folder.storage.shown(f"{self.folder.key}/{DOCUMENT}")
                raise DamagedError(f"{shown}: missing, though the study has a plan; {LOST}")
            return
        lines = differences(document["definition"], json.loads(json.dumps(self.definition)))
        if lines:
            raise UserError(
                f"study {self.folder.name!r} was started with another search:\n"
                + "".join(f"  {line}\n" for line in lines)
                + "A search learns from its own trials only. To keep both, give the new one a name of its own: "
                "--study NEWNAME (runs that both contain are reused)"
            )
        names = set(Trial.__dataclass_fields__) - {"configurations"}
        for entry in document["trials"]:
            trial = Trial(**{k: v for k, v in entry.items() if k in names})
            trial.configurations = self._configurations(trial.search, trial.params)
            self.trials.append(trial)

    def save(self) -> None:
        write_document(self.folder, self.definition, [trial.to_dict() for trial in self.trials])

    # ---- what there is
    @property
    def configurations(self) -> list[Configuration]:
        """Everything that was asked, teachers first, each once in an arm."""
        found: dict[tuple[str, str], Configuration] = {}
        for trial in self.trials:
            for c in trial.configurations:
                found.setdefault((c.method, c.config_id), c)
        return sorted(found.values(), key=lambda c: c.stage != "teacher")

    @property
    def open(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.state == OPEN]

    @property
    def budget(self) -> int:
        return sum(problem.trials for problem in self.problems)

    @property
    def left(self) -> int:
        """Trials that are still to be asked."""
        return sum(self._left(i) for i in range(len(self.problems)))

    def _left(self, search: int) -> int:
        return max(0, self.problems[search].trials - sum(t.search == search for t in self.trials))

    def _configurations(self, search: int, params: Mapping[str, Any]) -> list[Configuration]:
        problem = self.problems[search]
        values = {
            place: params[".".join(place)] if isinstance(v, Distribution) else v for place, v in problem.values.items()
        }
        sections = self.space.resolve(values, self._built)
        return trial_configurations(self.space, self.frame, problem.arm, sections, self._checksum)

    # ---- asking and telling
    def ask(self) -> Trial | None:
        """The next trial, of the search that is furthest behind; None if all have been asked. The document is written
        before it is handed out, so that it is the same one after a kill."""
        waiting = [i for i in range(len(self.problems)) if self._left(i)]
        if not waiting:
            return None
        counts = {i: sum(t.search == i for t in self.trials) for i in waiting}
        search = min(waiting, key=lambda i: (counts[i], i))
        problem, mine = self.problems[search], [t for t in self.trials if t.search == search]
        params = self._samplers[search].propose(len(mine), [_told(t) for t in mine])
        configurations = self._configurations(search, params)
        trial = Trial(
            len(self.trials), search, len(mine), problem.arm, plain(problem.at), plain(params),
            configurations[-1].config_id, configurations[-1].label, _events(mine), configurations=configurations,
        )  # fmt: skip
        self.trials.append(trial)
        self.save()
        return trial

    def settle(self, replicates: Mapping[str, Sequence[int]], config: str | None = None) -> list[Trial]:
        """Tell of every open trial (of one configuration) whose runs have ended, as the ledger has them.

        replicates: config_id -> the planned ones. Returns the trials that were told.
        """
        told = []
        for trial in self.open:
            if config is not None and trial.config_id != config:
                continue
            outcome = outcome_of(self.folder, trial.config_id, replicates[trial.config_id], self.options.names)
            if outcome is not None:
                trial.state, trial.values, trial.cause, trial.partial = outcome
                trial.told = _events([t for t in self.trials if t.search == trial.search])
                told.append(trial)
        if told:
            self.save()
        return told

    def reopen(self, missing: Sequence[str]) -> None:
        """Open the trials again of which runs are to be trained (by config_id): more replicates, another attempt."""
        again = [t for t in self.trials if t.state != OPEN and t.config_id in missing]
        for trial in again:
            trial.once_complete |= trial.state == COMPLETE
            trial.state, trial.values, trial.cause, trial.partial, trial.told = OPEN, None, None, None, None
        if again:
            self.save()


def outcome_of(
    folder: StudyFolder, config: str, replicates: Sequence[int], metrics: Sequence[str]
) -> tuple[str, list[float] | None, str | None, list[float] | None] | None:
    """State, values, cause and (step, validation AUC) of a configuration from its runs; None while one is missing.

    The value of a metric is the mean over all replicates. A trial of which one replicate failed has failed: a mean
    over those that are left would favour settings that fail.
    """
    values: dict[str, list[float]] = {name: [] for name in metrics}
    failures, pruned, missing = [], [], False
    for replicate in replicates:
        record = folder.ledger.read(config, replicate)
        if record is None and (ended := folder.ledger.pruned(config, replicate, folder.name)) is not None:
            pruned.append(ended)
        elif record is None and (failure := folder.failure(config, replicate)) is not None:
            failures.append(f"r{replicate:03d}: {failure['cause']}")
        elif record is None:
            missing = True
        elif record["row"]["status"] != "done":
            failures.append(f"r{replicate:03d}: {record['row'].get('cause') or record['row']['status']}")
        else:
            for name in metrics:
                value = record["row"].get(name)
                values[name].append(math.nan if value is None else float(value))
    if missing:
        return None
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        return FAILED, None, failures[0] + more, None
    if pruned:
        first = pruned[0]
        return PRUNED, None, first["cause"], [first["step"], first["value"]]
    means = [sum(values[name]) / len(values[name]) for name in metrics]
    for name, mean in zip(metrics, means, strict=True):
        if not math.isfinite(mean):
            return FAILED, None, f"{name} is not defined in every replicate", None
    return COMPLETE, means, None, None


def once_complete(folder: StudyFolder) -> set[str]:
    """The configurations of a search that were once complete, by its document. Some of their runs may be lost since."""
    document = read_document(folder) or {"trials": []}
    return {t["config_id"] for t in document["trials"] if t.get("once_complete") or t["state"] == COMPLETE}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], most: int = 8) -> list[str]:
    """What differs between two definitions, one key to a line: `key: before -> now`."""
    found = [
        f"{key}: {_text(before.get(key))} -> {_text(now.get(key))}"
        for key in now
        if key != "searches" and before.get(key) != now.get(key)
    ]
    sides = [{_place(s): s for s in part["searches"]} for part in (before, now)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(name) for side in sides)
        if old is None or new is None:
            found.append(f"{name}: {'new' if old is None else 'gone'}")
            continue
        for part in ("distributions", "fixed"):
            for key in dict.fromkeys([*old[part], *new[part]]):
                added = key not in old[part] and _does_nothing(key, new[part])
                if old[part].get(key) != new[part].get(key) and not added:
                    found.append(f"{key} ({name}): {_text(old[part].get(key))} -> {_text(new[part].get(key))}")
    return found[:most] + ([f"… and {len(found) - most} more"] if len(found) > most else [])


def _does_nothing(key: str, fixed: Mapping[str, Any]) -> bool:
    """Whether a key ("section.key") stands at its neutral value: one that this version has and an earlier one had not
    then makes no other search."""
    section, name = key.split(".", 1)
    meta = field_of(section_class(section, fixed.get("data.dataset")), name)[1]
    return bool(meta["neutral"] == fixed[key])


def _place(search: Mapping[str, Any]) -> str:
    return " ".join([search["arm"], *(f"{key}={value}" for key, value in search["at"].items())])


def _text(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False).replace('"', "")


def _events(trials: Sequence[Trial]) -> int:
    """The number of the next event of a search."""
    return 1 + max((max(t.asked, t.told if t.told is not None else -1) for t in trials), default=-1)


def _told(trial: Trial) -> Told:
    partial = (int(trial.partial[0]), trial.partial[1]) if trial.partial else None
    return Told(trial.trial, trial.params, trial.state, trial.values, trial.asked, trial.told, partial)
