"""Names for print: arms, keys and metrics as a reader is to see them, from `labels:` of a space or `--label NAME=TEXT`.

Everything that is typed or read by programs keeps the names of the space: `--baseline`, `--where`, the columns of
exported rows and of the long form of tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas

LABELS = "labels"
"""The attribute of loaded rows that holds them, name -> text."""
BY_STUDY = "labels_by_study"
"""The attribute of the rows of several studies that holds those of each, study -> name -> text; `LABELS` then has only
what they share."""
SYMBOLS = {"num_bags": "n", "mean_bag_size": "K", "unlabelled_bags": "m"}
SETTING_SYMBOLS = {
    **SYMBOLS, "epsilon": "ε", "lambda_adv": "λ_adv", "lambda_noise": "λ_noise", "lambda_ent": "λ_ent",
}  # fmt: skip
"""Of the keys that figures write as symbols; tables and messages have only `SYMBOLS`."""
STUDENT_ARROW = " → "
OF_TEACHER = tuple(f"{stage} of " for stage in ("attention", "matched", "no_soft_labels", "pooled", "smoothed"))
"""How the names of a student's arm and of a teacher's references are made from those of both kinds of arms."""


@dataclass(frozen=True)
class Names:
    """How arms, keys and metrics are printed."""

    texts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: pandas.DataFrame) -> Names:
        """Those of loaded rows; of the rows of several studies those that all share."""
        return cls(rows.attrs.get(LABELS) or {})

    @classmethod
    def of_studies(cls, rows: pandas.DataFrame, studies: Iterable[str]) -> Names:
        """Those of the studies that a configuration belongs to; where they differ, of the first."""
        by_study = rows.attrs.get(BY_STUDY)
        if not by_study:
            return cls.of(rows)
        texts: dict[str, str] = {}
        for study in studies:
            texts = {**by_study.get(study, {}), **texts}
        return cls(texts)

    def arm(self, method: str) -> str:
        """An arm by its text; one that is made of others by theirs."""
        if method in self.texts:
            return self.texts[method]
        for prefix in OF_TEACHER:
            if method.startswith(prefix):
                return prefix + self.arm(method.removeprefix(prefix))
        parts = method.split(STUDENT_ARROW)
        return STUDENT_ARROW.join(self.texts.get(part, part) for part in parts)

    def key(self, key: str) -> str:
        """A key by its text, else its symbol, else itself."""
        return self.texts.get(key) or SYMBOLS.get(key, key)

    def accepted_texts(self, key: str, value: str) -> tuple[str, ...]:
        """The texts by which a value of a key may be asked for: as the space has it, and as tables show it."""
        return (value, self.arm(value)) if key.endswith("method") else (value,)

    def uses_symbol(self, key: str | None) -> bool:
        """Whether a key is shown by its symbol."""
        return key in SYMBOLS and key not in self.texts


PLAIN = Names()
"""The names of the space, as they are."""


def with_labels(rows: pandas.DataFrame, labels: Mapping[str, str], option: str = "labels") -> pandas.DataFrame:
    """The rows with names for print, over those of their space. UserError for a name that is no arm, key or metric of
    the rows, or a text that two arms would share. option: how messages begin."""
    arms = arms_of(map(str, rows["method"].dropna().unique()))
    known = {**dict.fromkeys(arms), **dict.fromkeys(map(str, rows.columns))}
    for name, text in labels.items():
        if name not in known:
            raise UserError(f"{option} {name}={text}: no arm, key or metric is called so{nearest(name, known)} (arms: "
                            f"{listed(arms)})")  # fmt: skip
    made = rows.copy(deep=False)
    made.attrs = {**rows.attrs, LABELS: {**rows.attrs.get(LABELS, {}), **labels}}
    if BY_STUDY in rows.attrs:
        made.attrs[BY_STUDY] = {study: {**own, **labels} for study, own in rows.attrs[BY_STUDY].items()}
    for study, methods in made.groupby("study", dropna=False)["method"]:
        names, shown = Names.of_studies(made, [str(study)]), dict[str, str]()
        for arm in arms_of(map(str, methods.dropna().unique())):
            other = shown.setdefault(names.arm(arm), arm)
            if other != arm:
                raise UserError(f"{option}: the arms {other} and {arm} would both be called {names.arm(arm)!r}")
    return made


def joined_labels(frames: Iterable[pandas.DataFrame]) -> dict[str, Any]:
    """The attributes that hold the labels of several studies, from the rows of each."""
    by_study: dict[str, dict[str, str]] = {}
    for frame in frames:
        for study in map(str, frame["study"].dropna().unique()):
            own = frame.attrs.get(BY_STUDY, {}).get(study, frame.attrs.get(LABELS, {}))
            by_study[study] = {**own, **by_study.get(study, {})}
    first, *others = by_study.values() if by_study else [dict[str, str]()]
    shared = {name: text for name, text in first.items() if all(one.get(name) == text for one in others)}
    return {LABELS: shared} | ({BY_STUDY: by_study} if others else {})


def arms_of(methods: Iterable[str]) -> list[str]:
    """The arms, and those that they are made of."""
    found: dict[str, None] = {}
    for method in methods:
        found[method] = None
        bare = next((method.removeprefix(prefix) for prefix in OF_TEACHER if method.startswith(prefix)), method)
        found |= dict.fromkeys(bare.split(STUDENT_ARROW))
    return list(found)


def valid_labels(found: Any, columns: Iterable[str] = ()) -> dict[str, str]:
    """The labels of a resolved space, as far as they are texts; `teacher.epsilon` also as one of the columns."""
    texts = {str(k): v for k, v in found.items() if isinstance(v, str) and v} if isinstance(found, Mapping) else {}
    there = set(columns)
    for name, text in [*texts.items()]:
        section, dot, key = name.partition(".")
        if dot:
            texts.setdefault(next((c for c in (f"{section}_{key}", key) if c in there), key), text)
    return texts
