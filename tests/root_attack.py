"""One file of a root is damaged, then every command: what is wrong with what they say and do, as a list."""

from __future__ import annotations

import io
import random
import re
import shutil
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from damage import Damage, damages_of, folder_instead, kind_of, remove, remove_folder
from whole_root import CODES, Said, WholeRoot

TIMED = ("seconds", "committed_at", "made_by", "attempts", "code_version", "replaces", "host")
"""Parts of the names of columns that tell how a run was made."""

LOST = (remove, remove_folder)
MOST_LINES = 8
"""Of an error: a few warnings, and what is to be done."""


class Attack:
    """A root made whole, and what its commands say of it while it is."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.whole = whole = WholeRoot(folder, names)
        np.save(folder / "digits.npy", np.zeros((3, 28, 28), np.uint8))
        self.rows = {name: whole.rows(name)[0] for name in names}
        frame = pd.read_csv(io.StringIO(self.rows[names[0]]))
        done = frame[frame["status"] == "done"].groupby("stage")["config_id"].first()
        self.model = done["student" if "student" in done else "teacher"]
        self.trained = done["teacher"]
        self._usual: dict[str, int] = {}

    def cases(self) -> Iterator[tuple[list[Path], Damage]]:
        """The files of every kind, with every damage."""
        kinds: dict[str, list[Path]] = {}
        for path in self.whole.files():
            if path.parts[0] in ("results", "studies"):
                kinds.setdefault(kind_of(path), []).append(path)
        for files in kinds.values():
            for damage in damages_of(files[0]):
                yield files, damage

    def reading(self) -> dict[str, Callable[[], Said]]:
        """The commands that only read, by a label."""
        w, out = self.whole, self.whole.folder
        picture = ("--out", out / "x.svg")
        found: dict[str, Callable[[], Said]] = {
            "list": lambda: w.study("list"),
            "gc": lambda: w.study("gc"),
            "label": lambda: w.study("label", "--run", self.model, out / "digits.npy", "--out", out / "labels"),
        }
        for name in w.names:
            found |= {
                f"status {name}": partial(w.study, "status", name),
                f"plan {name}": partial(w.study, "plan", "--space", out / f"{name}.yaml"),
                f"stop {name}": partial(w.study, "stop", name),
                f"remove {name}": partial(w.study, "remove", name),
                f"tables {name}": partial(w.analysis, "tables", name),
                f"compare {name}": partial(w.analysis, "compare", name),
                f"report {name}": partial(w.analysis, "report", name, "--out", out / "x.html"),
                f"figure {name}": partial(w.analysis, "figure", name, *picture),
                **{f"{kind} {name}": partial(w.analysis, "figure", name, "--kind", kind, *picture)
                   for kind in ("learning", "roc", "best")},
            }  # fmt: skip
        return found

    def writing(self) -> dict[str, Callable[[], Said]]:
        """Commands that may train or write."""
        w = self.whole
        return {
            "trial": partial(w.study, "trial", "--id", self.trained),
            "reproduce": partial(w.study, "reproduce", self.trained),
            **{f"{word} {name}": partial(w.study, word, name) for word in ("sync", "prune") for name in w.names},
        }

    # ---- one case
    def problems(
        self, path: Path, damage: Damage, seed: object, commands: list[str] | None = None, heal: bool = True
    ) -> list[str]:
        """What is wrong after this damage to this file (relative to the root).

        commands: labels of those to be given; heal: then `run`, as advised, and see whether all is as it was.
        """
        found: list[str] = []
        known = {**self.reading(), **self.writing()}
        commands = [*known] if commands is None else commands
        for label in (label for label in commands if label not in self._usual):
            self.whole.again()
            self._usual[label] = known[label]().code
        self._damaged(path, damage, seed)
        for name in self.whole.names:
            if said := self._call(found, f"export {name}", lambda name=name: Said(0, *self.whole.rows(name))):
                self._check_rows(found, name, said, path, damage)
        for label in commands:
            if said := self._call(found, label, known[label]):
                self._check_said(found, label, said, path, damage)
        if heal:
            self._damaged(path, damage, seed)
            for name in self.whole.names:
                self._heal(found, name, path, damage)
        return [f"{path} {damage.__name__} ({seed}): {problem}" for problem in found]

    def _damaged(self, path: Path, damage: Damage, seed: object) -> None:
        self.whole.again()
        damage(self.whole.root / path, random.Random(f"{seed} {path} {damage.__name__}"))

    def _call(self, found: list[str], label: str, do: Callable[[], Said]) -> Said | None:
        try:
            said = do()
        except Exception as error:
            places = [
                f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)[:-6:-1]
            ]
            found.append(f"{label}: traceback {type(error).__name__}: {error} at {' < '.join(places)}")
            return None
        if "Traceback" in said.text or said.code not in (0, 1, 2):
            found.append(f"{label}: code {said.code}: {said.text[-600:]}")
        return said

    def _check_rows(self, found: list[str], name: str, said: Said, path: Path, damage: Damage) -> None:
        """Rows are as they were, or the file is named; what was removed without a trace is missing."""
        if said.out == self.rows[name] or self._names(path, said.text):
            return
        if damage in LOST and (not said.out or self._only_missing(name, said.out)):
            return
        found.append(f"export {name}: other rows, and the file is not named: {said.err.strip()[-300:]}")

    def _only_missing(self, name: str, text: str) -> bool:
        before, now = (pd.read_csv(io.StringIO(rows)) for rows in (self.rows[name], text))
        if len(before) != len(now):
            return False
        gone = now["status"] == "missing"
        kept = [c for c in before if c in now]
        return not _differing(before[~gone][kept], now[~gone][kept])

    def _check_said(self, found: list[str], label: str, said: Said, path: Path, damage: Damage) -> None:
        """A command that goes well otherwise says why it does not, in a few lines that name the file."""
        if said.code == self._usual[label] or label == "reproduce":  # which compares, and may find a difference
            return
        lines = said.err.strip().splitlines()
        if not any(line.startswith("error: ") for line in lines) or len(lines) > MOST_LINES:
            found.append(f"{label}: code {said.code}, and no short error: {said.text[-600:]}")
        elif not self._names(path, said.text) and damage not in LOST:
            found.append(f"{label}: code {said.code}, and the file is not named: {said.err[-300:]}")

    def _names(self, path: Path, text: str) -> bool:
        folders = [self.whole.root / above for above in path.parents if len(above.parts) >= 3]
        return path.name in text or any(str(place) in text for place in (self.whole.root / path, *folders))

    def _heal(self, found: list[str], name: str, path: Path, damage: Damage) -> None:
        """Do what the message says until the command goes through; then all is as it was."""
        said = None
        for _ in range(3):
            said = self._call(found, f"run {name}", lambda: self.whole.run(name))
            if said is None or said.code == CODES[name]:
                break
            advised = re.search(r"remove (?:the folder |the file )?(it\b|/[^\s,;]+)", said.text)
            if advised is None:
                if "Is a directory" in said.text and self._names(path, said.text):
                    return  # somebody has put a folder in the place of a file: said
                found.append(f"run {name}: code {said.code}: {said.text[-500:]}")
                return
            place = self.whole.root / path if advised[1] == "it" else Path(advised[1])
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
        text, err = self.whole.rows(name)
        if not text:
            found.append(f"run {name}: no rows afterwards: {err[-300:]}")
            return
        before, now = (pd.read_csv(io.StringIO(rows)) for rows in (self.rows[name], text))
        kept = [c for c in before if not any(part in c for part in TIMED)]
        if len(before) != len(now) or (lacking := [c for c in kept if c not in now]):
            found.append(f"run {name}: {len(before)} rows became {len(now)}; lacking {lacking[:8]}")  # type: ignore
        elif differing := _differing(before[kept], now[kept]):
            states = {*before["status"], *now["status"]}
            if damage is folder_instead and self._names(path, err):
                return  # nothing can be written in the place of a folder: said
            again = path.parts[0] == "results" or damage is remove_folder
            if "pruned" in states and "missing" not in states and again:
                return  # trained again, a run is judged against more others than at its time, and may end elsewhere
            found.append(f"run {name}: other values of {differing[:8]}")


def _differing(one: pd.DataFrame, other: pd.DataFrame) -> list[str]:
    """The columns in which two tables differ."""
    same = ((one.to_numpy(object) == other.to_numpy(object)) | (one.isna() & other.isna()).to_numpy()).all(axis=0)
    return [str(column) for column, equal in zip(one.columns, same, strict=True) if not equal]
