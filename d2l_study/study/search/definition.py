"""The definition of a search: what it searches, by which metrics, and from which seed. A search that goes on has the
same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from d2l_study.learning.science_version import FIRST, version_of_keys
from d2l_study.options import field_of
from d2l_study.study.ledger.search_document import IN_PLAN
from d2l_study.study.plan.configurations import Checksum, VariedKeys, trial_configurations
from d2l_study.study.search.arm_search import ArmSearch
from d2l_study.study.space.keys import plain, scientific, section_class
from d2l_study.study.space.space import Space


def definition_of(
    space: Space, arm_searches: Sequence[ArmSearch], varied_keys: VariedKeys, checksum: Checksum
) -> dict[str, Any]:
    """The definition of a study's search, as `search.json` has it."""
    options = space.search
    assert options is not None
    built: dict[tuple[Any, ...], Any] = {}
    searches: list[dict[str, Any]] = []
    sums: dict[str, None] = {}
    version = FIRST
    for one in arm_searches:
        sections = space.resolve(space.drawn(one.values, 0), built)
        (*_, target) = trial_configurations(space, varied_keys, one.arm, sections, checksum)
        sums[target.data_checksum] = None
        version = max(version, target.science_version, version_of_keys(one.distributions))
        fixed = {
            f"{name}.{key}": value
            for name, section in sections.items()
            for key, value in scientific(section).items()
            if f"{name}.{key}" not in one.distributions
        }
        found = {key: d.to_dict() for key, d in one.distributions.items()}
        searches.append({"arm": one.arm, "at": plain(one.at), "distributions": found, "fixed": fixed})
    return {
        "method": options.method, "metrics": list(options.names), "goals": list(options.goals),
        "startup": options.startup, "oracle": options.sees_labels, "base_seed": space.base_seed,
        "data_checksum": ", ".join(sums), "science_version": version, "searches": searches, **options.enqueued,
    }  # fmt: skip


def definition_differences(before: Mapping[str, Any], now: Mapping[str, Any], most: int = 8) -> list[str]:
    """The differences between two definitions, one key to a line: `key: before -> now`; at most `most` lines. now: of a
    search that learns."""
    if before.get("method") in IN_PLAN:  # of such a search other things are recorded
        return [f"method: {before['method']} -> {now['method']}"]
    found = [
        f"{key}: {_text(before.get(key))} -> {_text(now.get(key))}"
        for key in dict.fromkeys([*now, *before])
        if key != "searches" and before.get(key) != now.get(key)
    ]
    sides = [{_full_name(s): s for s in part["searches"]} for part in (before, now)]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        old, new = (side.get(name) for side in sides)
        if old is None or new is None:
            found.append(f"{name}: {'new' if old is None else 'gone'}")
            continue
        for part in ("distributions", "fixed"):
            for key in dict.fromkeys([*old[part], *new[part]]):
                added = key not in old[part] and _is_neutral(key, new[part])
                if old[part].get(key) != new[part].get(key) and not added:
                    found.append(f"{key} ({name}): {_text(old[part].get(key))} -> {_text(new[part].get(key))}")
    return found[:most] + ([f"… and {len(found) - most} more"] if len(found) > most else [])


def _is_neutral(key: str, fixed: Mapping[str, Any]) -> bool:
    """Whether a key ("section.key") has its neutral value. A key that an earlier version did not know makes no other
    search then."""
    section, name = key.split(".", 1)
    meta = field_of(section_class(section, fixed.get("data.dataset")), name)[1]
    return bool(meta["neutral"] == fixed[key])


def _full_name(search: Mapping[str, Any]) -> str:
    return " ".join([search["arm"], *(f"{key}={value}" for key, value in search["at"].items())])


def _text(value: Any) -> str:
    return "(none)" if value is None else json.dumps(value, ensure_ascii=False).replace('"', "")
