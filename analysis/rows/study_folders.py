"""Where the studies of loaded rows lie, for what rows do not hold: predictions, curves, searches."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(frozen=True)
class RunFolders:
    """The folder that holds each finished run. Several studies, also of different roots, may share a configuration and
    each have some of its replicates."""

    by_run: Mapping[tuple[str, int], StudyFolder]

    @classmethod
    def of(cls, rows: pandas.DataFrame) -> RunFolders:
        """Those of loaded rows: of a run that several studies have, the first, as in tables. UserError as of
        `folders_of`."""
        folders = folders_of(rows)
        there = rows[(rows["status"] == "done") & rows["study"].isin(list(folders))]
        first = there.drop_duplicates(["config_id", "replicate"])
        runs = zip(first["config_id"], first["replicate"], first["study"], strict=True)
        return cls({(str(config), int(replicate)): folders[str(study)] for config, replicate, study in runs})

    def folder(self, config_id: str, replicate: int) -> StudyFolder:
        """The folder of a finished run. UserError for one of whose studies none came from a folder."""
        if (config_id, replicate) not in self.by_run:
            raise UserError(
                f"run {config_id[:10]} r{replicate:03d} came from a file or from MLflow, which hold no predictions; "
                "name the folder of its study, ROOT/studies/<name>, instead"
            )
        return self.by_run[config_id, replicate]


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
