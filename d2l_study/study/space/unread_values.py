"""What a plan says of values that a space gives and that nothing reads, such as ε without R_adv."""

from __future__ import annotations

from d2l_study.options import value_text
from d2l_study.study.space.arm_checks import OFF
from d2l_study.study.space.idle_values import idle_keys
from d2l_study.study.space.space import Space


def unread_values(space: Space) -> list[str]:
    """`section.key value (why)` of each value of a space that nothing reads at any of its points. Values that switch
    something off are left out."""
    why: dict[str, str] = {}
    read: set[str] = set()
    for arm, sections in space.points():
        idle = idle_keys(sections)
        for section, keys in space.arm_keys(arm).items():
            for key in keys:
                place = f"{section}.{key}"
                if key in space.methods[arm].get(section, {}):
                    place = f"{_group(space, arm, section)}.{place}"
                value = getattr(sections[section], key)
                if (section, key) not in idle or value in OFF:
                    read.add(place)
                else:
                    why.setdefault(place, f"{place} {value_text(value)} ({idle[section, key]})")
    return [text for place, text in why.items() if place not in read]


def _group(space: Space, arm: str, section: str) -> str:
    """Where an arm of a space stands that sets a key of a section."""
    if not space.pairs:
        return f"methods.{arm}"
    teacher, student = space.pairs[arm]
    return f"teachers.{teacher}" if section == "teacher" else f"methods.{student}"
