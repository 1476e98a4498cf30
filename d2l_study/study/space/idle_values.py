"""Values of a configuration that nothing reads, as ε without R_adv. What is said of a study leaves them out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from d2l_study.errors import UserError
from d2l_study.options import Options
from d2l_study.study.space.keys import Key, classes_of, flat_names, sections_of
from d2l_study.study.space.training_length import LENGTH_KEYS
from d2l_study.study.space.unlabelled_keys import idle_unlabelled_keys


def idle_keys(sections: Mapping[str, Options]) -> dict[Key, str]:
    """(section, key) -> what makes that it does nothing, as `key value`. sections: of a configuration."""
    found = dict(idle_unlabelled_keys(sections)) if "data" in sections else {}
    for name, options in sections.items():
        found |= {(name, key): why for key, why in (options.inert_keys() | options.idle_keys()).items()}
    return found


def idle_names(values: Mapping[str, Any]) -> set[str]:
    """The names of those flat values of a configuration (`keys.flat_names`) that nothing reads.

    values: as a plan or a row keeps them; names that are no key are passed over, and keys that are missing have their
    defaults. A section that this version does not understand counts as read.
    """
    classes = classes_of(values)
    sections: dict[str, Options] = {}
    for name, section in sections_of(values).items():
        # Plans and rows keep the epochs beside the steps that they came to; options take one of them.
        given = {key: value for key, value in section.items() if key not in LENGTH_KEYS}
        with contextlib.suppress(UserError, TypeError):
            sections[name] = classes[name](**given)
    names = flat_names(classes)
    return {names[place] for place in idle_keys(sections) if place in names}


def without_idle_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The flat values of a configuration without those that nothing reads."""
    idle = idle_names(values)
    return {name: value for name, value in values.items() if name not in idle}
