"""The document of a search whose points are known beforehand: `method: random` or `grid`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from d2l_study.study.ledger.search_document import write_document
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, trial_configurations, varied_keys_of
from d2l_study.study.search.arm_search import arm_searches
from d2l_study.study.search.trial import COMPLETE, OPEN, once_complete, trial_outcome
from d2l_study.study.space.keys import plain
from d2l_study.study.space.space import Space


def write_fixed_search(space: Space, folder: StudyFolder, checksum: Checksum) -> None:
    """Write `search.json` of `method: random` or `grid` from the ledger, in the same form as `search.Search` has it."""
    assert space.search is not None and not space.adaptive
    options, varied_keys, built = space.search, varied_keys_of(space, checksum), {}  # type: ignore[var-annotated]
    searches: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    before = once_complete(folder)
    grid = options.method == "grid"
    chosen = [replace(one, at={}) if grid else one for one in arm_searches(space)]
    arms = list(dict.fromkeys(one.arm for one in chosen))
    for arm_search in chosen:
        axes = {
            f"{s}.{k}": v for s, keys in space.arm_keys(arm_search.arm).items() for k, v in keys.items()
            if isinstance(v, tuple)
        }  # fmt: skip
        ways = {k: d.to_dict() for k, d in arm_search.distributions.items()}
        if grid:
            ways = {key: {"choices": list(values)} for key, values in axes.items()}
        entry = {"arm": arm_search.arm, "at": plain(arm_search.at), "distributions": ways}
        if entry not in searches:
            searches.append(entry)
        number = searches.index(entry)
        for draw in range(arm_search.trials):
            values = space.drawn(arm_search.values, draw)
            sections = space.resolve(values, built)
            (*_, target) = [
                c
                for c in trial_configurations(space, varied_keys, arm_search.arm, sections, checksum)
                if c.stage == space.stage
            ]
            named = {".".join(place): value for place, value in values.items()}
            outcome = trial_outcome(folder, target.config_id, range(space.replicates), options.names)
            state, found, cause, partial = outcome or (OPEN, None, None, None)
            count = sum(t["search"] == number for t in trials)
            trials.append({
                "number": len(trials), "search": number, "trial": count, "arm": arm_search.arm, "at": entry["at"],
                "params": {key: named[key] for key in ways}, "config_id": target.config_id, "label": target.label,
                "asked": 2 * count, "state": state, "values": found, "cause": cause, "partial": partial,
                "told": 2 * count + 1 if outcome else None, "trial_id": target.config_id[:10],
                "replicates": space.replicates if state == COMPLETE else None,
                "once_complete": target.config_id in before or state == COMPLETE,
            })  # fmt: skip
    definition = {
        "method": options.method, "metrics": list(options.names), "goals": list(options.goals),
        "startup": 0, "oracle": options.sees_labels, "base_seed": space.base_seed, "searches": searches, "arms": arms,
        **options.enqueued,
    }  # fmt: skip
    write_document(folder, definition, trials)
