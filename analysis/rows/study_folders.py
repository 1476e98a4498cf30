"""Where the studies of loaded rows lie, for what rows do not hold: predictions, curves, searches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from d2l_study.credentials import masked
from d2l_study.errors import UserError
from d2l_study.study.ledger.object_storage import is_address
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas

FOLDERS = "folders"
"""The attribute of loaded rows: study, as rows name it -> the root that holds it. Rows of a file or of MLflow do not
have it."""


def folders_of(rows: pandas.DataFrame) -> dict[str, StudyFolder]:
    """The folders of loaded rows by study; UserError where they came from a file or MLflow, without predictions."""
    places = rows.attrs.get(FOLDERS) or {}
    if not places:
        raise UserError("predictions are in a study's folder; these rows came from a file or from MLflow alone")
    # What tells two studies of one name apart stands before the name (`with_own_names`).
    return {name: StudyFolder(open_storage(root), name.rpartition("/")[2]) for name, root in places.items()}


RunKey = tuple[str, int, str | None]
"""config_id, replicate and study of a run; without a study the run of the first study that finished it, which tables
take where they do not tell studies apart."""


def by_run(rows: pandas.DataFrame, values: Iterable[Any]) -> dict[RunKey, Any]:
    """The values of finished runs, one for each of the rows, by run: with its study and without."""
    found: dict[RunKey, Any] = {}
    columns = (rows[name].tolist() for name in ("config_id", "replicate", "study", "status"))
    for config, replicate, study, status, value in zip(*columns, values, strict=True):
        if status == "done":
            run = str(config), int(replicate)
            found.setdefault((*run, None), value)
            found.setdefault((*run, str(study)), value)
    return found


def finished_replicates(rows: pandas.DataFrame) -> dict[tuple[str, str | None], list[int]]:
    """(config_id, study) -> the replicates that are finished, ascending; without a study those of all together."""
    found: dict[tuple[str, str | None], list[int]] = {}
    for config, replicate, study in sorted(by_run(rows, rows["study"]), key=lambda run: run[1]):
        found.setdefault((config, study), []).append(replicate)
    return found


@dataclass(frozen=True)
class RunFolders:
    """The folder that holds each finished run. Several studies, also of different roots, may share a configuration and
    each have some of its replicates."""

    folders: Mapping[RunKey, StudyFolder]

    @classmethod
    def of(cls, rows: pandas.DataFrame) -> RunFolders:
        """Those of loaded rows. UserError as of `folders_of`."""
        folders = folders_of(rows)
        there = rows[rows["study"].isin(list(folders))]
        return cls(by_run(there, (folders[str(study)] for study in there["study"])))

    def folder(self, config_id: str, replicate: int, study: str | None = None) -> StudyFolder:
        """The folder of a finished run; of several that of the study, else the first. UserError where it came from no
        folder."""
        run = config_id, replicate
        found = self.folders.get((*run, study)) or self.folders.get((*run, None))
        if found is None:
            raise UserError(
                f"run {config_id[:10]} r{replicate:03d} came from a file or from MLflow, which hold no predictions; "
                "name the folder of its study, ROOT/studies/<name>, instead"
            )
        return found


def with_own_names(frames: Sequence[pandas.DataFrame]) -> list[pandas.DataFrame]:
    """The rows of studies, in which those of one name in several roots are told apart by the ends of their roots, as
    far as is needed: `old_runs/vat_quick` and `runs/vat_quick`."""
    roots: dict[str, dict[str, str]] = {}
    for frame in frames:
        for name, root in frame.attrs.get(FOLDERS, {}).items():
            roots.setdefault(name, {}).setdefault(_same_place(root), root)
    prefixes = {name: _ends(list(places)) for name, places in roots.items() if len(places) > 1}
    made = []
    for frame in frames:
        for name, root in frame.attrs.get(FOLDERS, {}).items():
            if name in prefixes:
                own = f"{prefixes[name][_same_place(root)]}/{name}"
                attrs = {**frame.attrs, "study": own, FOLDERS: {own: root}}
                frame = frame.assign(study=own)
                frame.attrs = attrs
        made.append(frame)
    return made


def _same_place(root: str) -> str:
    """One text for one root, whatever links lead to it."""
    return root if is_address(root) else os.path.realpath(root)


def _ends(places: Sequence[str]) -> dict[str, str]:
    """Root -> its last parts, as few as tell it from the others."""
    parts = {place: [part for part in place.partition("?")[0].split("/") if part] for place in places}
    for count in range(1, max(map(len, parts.values())) + 1):
        found = {place: "/".join(own[-count:]) for place, own in parts.items()}
        if len(set(found.values())) == len(places):
            return found
    return {place: masked(place) for place in places}  # they differ in what an address asks for
