"""The columns of a manifest: their names, other names that they are known by, and what is said of all the others.

A column by one of the other names is used as if it had the right one, where that is missing, and `plan` says so; what
separates patients must not be left out because of its name. Of two that say what belongs together (`patient`, `slide`)
the coarser one is the group, and it is checked that the finer one does not cross it.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from d2l_study.data.purpose import Purpose
from d2l_study.errors import listed, nearest

OTHER_NAMES: dict[str, tuple[str, ...]] = {
    "bag": ("slide", "wsi"),
    "label": ("baglabel", "slidelabel", "class", "target"),
    "path": ("file", "filepath", "image", "imagepath", "imagefile", "img", "imgpath"),
    "group": ("patient", "subject", "participant", "donor", "person", "individual", "pat", "pid", "mrn",
              "medicalrecord", "hospitalnumber", "nhsnumber", "animal", "mouse", "rat", "case", "casesubmitter",
              "accession", "specimen", "biopsy", "block", "core", "slide", "wsi"),
    "split": ("fold", "cv", "cvfold", "cvsplit", "crossvalidation", "crossvalidationfold", "set",
              "subset", "partition", "datasplit"),
    "x": ("xcenter", "xcentre", "centerx", "centrex", "xcentroid", "centroidx", "xcoord", "coordx", "xpos", "posx"),
    "y": ("ycenter", "ycentre", "centery", "centrey", "ycentroid", "centroidy", "ycoord", "coordy", "ypos", "posy"),
    "instance_label": ("instanceclass", "patchlabel", "patchclass", "tilelabel", "tileclass", "nucleuslabel",
                       "nucleusclass", "celllabel", "cellclass", "pointlabel", "pointclass"),
}  # fmt: skip
"""In lower case, without blanks, `_`, `-` and `.`; those of `group` from coarse to fine. `id`, `name`, `number` and the
like may follow."""


@dataclass(frozen=True)
class ColumnNames:
    """The columns that a table may have. needed, optional: their names; taken: the order in which they are looked for
    by other names, `other` has these; kept: what the names of further columns match that are read, too; called: name ->
    the column that the user says it is, and nothing else; keys: name -> the key that says so; idle: names of which
    nothing is asked, so that a column may be called nearly so."""

    needed: tuple[str, ...]
    optional: tuple[str, ...]
    taken: tuple[str, ...]
    other: Mapping[str, tuple[str, ...]]
    kept: re.Pattern[str] | None = None
    called: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    idle: tuple[str, ...] = ()

    def for_purpose(self, purpose: Purpose) -> ColumnNames:
        """With an idle `split` where a given one is not used."""
        return self if purpose.given_split else replace(self, idle=("split",))


MANIFEST = ColumnNames(
    ("bag", "label", "path"), ("group", "split", "x", "y", "instance_label"),
    ("bag", "label", "path", "split", "instance_label", "group"), OTHER_NAMES,
)  # fmt: skip

MPP_NAMES = ("slidempp", "mppx", "micronsperpixel", "umperpixel")
"""Other names of the column `mpp`, a slide's own µm per pixel."""

SLIDE_MANIFEST = ColumnNames(
    ("label", "path"), ("bag", *MANIFEST.optional, "mpp", "annotation"), (*MANIFEST.taken, "mpp", "annotation"),
    {**OTHER_NAMES, "mpp": MPP_NAMES, "annotation": ("annotations", "annotationfile", "annotationpath", "geojson")},
)  # fmt: skip
"""Of a manifest of slides that are cut at a resolution: without a column `bag` each slide is one."""

UNLABELLED_MANIFEST = ColumnNames(
    ("path",), ("bag", "x", "y", "mpp"), ("path", "bag", "mpp"),
    {"path": (*OTHER_NAMES["path"], "slidepath", "slidefile", "filename"), "bag": OTHER_NAMES["bag"], "mpp": MPP_NAMES,
     "x": OTHER_NAMES["x"], "y": OTHER_NAMES["y"], "group": ()},
)  # fmt: skip
"""Of a manifest that is scored, not trained on: labels and groups are left alone, and without a column `bag` each image
is one."""

_ENDINGS = re.compile(r"(ids?|names?|numbers?|no|nr|num|index|barcode|code)$")

MOST_COLUMNS = 100_000
_COMPARED = 2000
"""Columns up to which it is looked whether one is a misspelt other."""


@dataclass(frozen=True)
class Columns:
    """Where the columns of a manifest are. place: name -> index in the header; shown: name -> how messages call it;
    related: further columns that say what belongs together, shown name -> index; notes: what a user should know;
    ignored: columns that may say what belongs together, too, for all that their names tell, name -> index; kept: those
    that `ColumnNames.kept` matches, shown name -> index."""

    place: dict[str, int]
    shown: dict[str, str]
    related: dict[str, int]
    notes: tuple[str, ...]
    ignored: dict[str, int] = field(default_factory=dict)
    kept: dict[str, int] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.place


def find_columns(header: Sequence[str], table: ColumnNames = MANIFEST) -> tuple[Columns, list[str]]:
    """The columns of a header, and what is wrong with it."""
    header = [name if len(name) <= 80 else name[:80] + "…" for name in header]
    names = [name.strip().lower() for name in header]
    counts, wrong = Counter(names), []
    called = {name: text.strip().lower() for name, text in table.called.items()}
    looked_for = {name: called.get(name, name) for name in (*table.needed, *table.optional)}
    place = {name: names.index(text) for name, text in looked_for.items() if text in counts}
    shown = {name: header[i].strip() if name in called else name for name, i in place.items()}
    wrong += [f"column {shown[name]} is there {counts[names[i]]} times" for name, i in place.items()
              if counts[names[i]] > 1 and name not in table.idle]  # fmt: skip
    by_meaning = _by_meaning(header, table)
    taken = set(place.values())
    for name in table.taken:
        for i in () if name in place or name in called else by_meaning[name]:
            if i not in taken:
                place[name] = i
                taken.add(i)
                shown[name] = f"{header[i].strip()} (taken as {name})"
                break
    if not {"x", "y"} & {*place} and len(by_meaning.get("x", ())) == len(by_meaning.get("y", ())) == 1:
        for name in ("x", "y"):
            place[name] = by_meaning[name][0]
            shown[name] = f"{header[place[name]].strip()} (taken as {name})"
            taken.add(place[name])
    kept = {header[i].strip(): i for i, name in enumerate(names) if table.kept and table.kept.fullmatch(name)}
    taken |= set(kept.values())
    unused = [i for i in range(len(names)) if i not in taken and names[i] not in place]
    for name in table.needed:
        if name not in place:
            text = table.called.get(name, name)
            hint = nearest(text, [header[i].strip() for i in unused[:_COMPARED] if names[i]])
            key = f"; {table.keys[name]} names it" if name in table.keys else ""
            wrong.append(f"no column {text}{hint} (found: {listed(h.strip() or '(empty)' for h in header)}){key}")
    wrong += _misspelt([header[i].strip() for i in unused], place, table)
    if ("x" in place) != ("y" in place):
        wrong.append("only one of the columns x and y is there; points need both")
    related = {header[i].strip(): i for i in by_meaning["group"] if i not in taken}
    left = [header[i].strip() or "(empty)" for i in unused if i not in related.values()]
    left += [header[i].strip() for name, i in place.items() if name in table.idle]
    notes = [f"column {text.split(' (taken as')[0]} is taken as {name}" for name, text in shown.items()
             if text != name and name not in table.idle]  # fmt: skip
    if related:
        notes.append(f"checked not to cross groups: {listed(related)}")
    if left:
        notes.append(f"columns left alone: {listed(left)}")
    wanted = "group" in (*table.needed, *table.optional)
    own = shown.get("group") == "group" or not wanted  # who names groups has thought of patients
    ignored = (
        {} if own else {header[i].strip(): i for i in unused if header[i].strip() and header[i].strip() not in related}
    )
    return Columns(place, shown, related, tuple(notes), ignored, kept), wrong


def _by_meaning(header: Sequence[str], table: ColumnNames) -> dict[str, list[int]]:
    """The columns that each name's other names fit, in the order of these."""
    found: dict[str, list[int]] = {name: [] for name in table.other}
    known = {other for others in table.other.values() for other in others}
    fits: dict[str, list[int]] = {}
    for i, text in enumerate(header):
        key = re.sub(r"[\s_.-]+", "", text.lower())
        for form in (key, _ENDINGS.sub("", key)):
            if form in known:
                fits.setdefault(form, []).append(i)
                break
    for name, others in table.other.items():
        for other in others:
            found[name] += fits.get(other, [])
    return found


def _misspelt(unused: Sequence[str], place: dict[str, int], table: ColumnNames) -> list[str]:
    """A column that is meant, but misspelt, would be left out silently. Names with numbers are those of features."""
    lacking = [name for name in (*table.optional, *table.needed) if name not in place and name not in table.idle]
    found = []
    compared = [name for name in dict.fromkeys(unused) if not re.search(r"\d\d", name)][:_COMPARED]
    for name in compared:
        close = difflib.get_close_matches(name.lower(), lacking, n=1, cutoff=0.8)
        if close and close[0] in table.optional:
            found.append(f"unknown column {name!r}; did you mean {close[0]!r}?")
    return found
