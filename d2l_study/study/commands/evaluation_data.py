"""The data that `evaluate` is given: read as the model's own data are, and checked to be what the model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from d2l_study.data import DATASETS, BagCollection, FeatureCollection
from d2l_study.data.features.embedded import EMBEDDED
from d2l_study.data.features.encoder_names import are_other_encoders
from d2l_study.data.features.opening import ENDINGS as FEATURE_FILES
from d2l_study.data.given_bags import GivenBags
from d2l_study.data.purpose import EVALUATION
from d2l_study.environment import user_path
from d2l_study.errors import UserError, listed, nearest, short
from d2l_study.inference.model_file import StoredModel
from d2l_study.nearest_path import path_hint
from d2l_study.options import Options
from d2l_study.study.space.keys import has_key
from d2l_study.study.space.yaml_reader import parse_yaml

ARCHIVES = tuple(name for name, cls in DATASETS.items() if issubclass(cls, GivenBags) and not has_key(cls, "path"))
"""The data sets that are known by their names, whose files are in the folder of `D2L_DATA`."""
MANIFESTS = (".csv", ".tsv", ".parquet", ".xlsx")
IN_VAIN = {"dataset": "--data says which data", "path": "that is --data", "folds": "nothing is trained",
           "num_bags": "nothing is trained", "unlabelled_bags": "nothing is trained",
           "splits": "all bags are evaluated", "normalise": "the model normalises as in its training"}  # fmt: skip
"""Keys of the section `data` that are not for `--set` here, and why."""
TRAINING_PARTS = ("folds", "num_bags", "unlabelled_bags")
"""Keys of the section `data` that say which bags are trained on."""


def data_section(stored: StoredModel, other: str, overrides: Sequence[str] = ()) -> GivenBags:
    """The section `data` by which `other` is read.

    It has the keys of the model's own section, where the data are of the same kind, but none that name files or
    folders; patches are of the model's side. overrides: "data.KEY=VALUE" each. `UserError` for another key or value, or
    for what is no data of the model's kind.
    """
    own = dict(stored.card.sections.get("data", {}))
    if len(stored.model.shape) == 1:
        expected = f"a table of slides, a folder or a file of a whole data set, or {listed(EMBEDDED)}"
        section = _kept(own, "features") | {"path": _existing(other, expected, EMBEDDED)}
    else:
        section = _patches(stored, own, other)
    cls: type[Options] = DATASETS[section["dataset"]]
    found = cls.from_mapping(section | _overrides(cls, overrides), "data")
    assert isinstance(found, GivenBags)
    return found


def _patches(stored: StoredModel, own: Mapping[str, Any], other: str) -> dict[str, Any]:
    if other == "mnist":
        raise UserError("--data mnist: its bags are drawn, so there is no other cohort of them; expected a manifest, "
                        f"or {listed(ARCHIVES)}")  # fmt: skip
    if other in ARCHIVES and not Path(other).exists():
        return _kept(own, other)
    path = Path(_existing(other, f"a manifest ({listed(MANIFESTS)}), or {listed(ARCHIVES)}", ARCHIVES))
    if path.is_dir():
        tables = sorted(p.name for p in path.iterdir() if p.suffix.lower() in MANIFESTS and not p.name.startswith("."))
        if len(tables) != 1 and own.get("dataset") in ARCHIVES:
            return _kept(own, own["dataset"]) | {"root": str(path)}
        if len(tables) != 1:
            found = f"holds {len(tables)} tables: {listed(tables, 5)}" if tables else "holds no table"
            raise UserError(f"--data {other}: a folder that {found}; expected a manifest ({listed(MANIFESTS)})")
        path = path / tables[0]
    section = _kept(own, "manifest") | {"path": str(path)}
    height, width = stored.model.patch_shape[1:]
    if height == width and section.get("cut") != "whole":
        section["patch_size"] = height
    return section


def _kept(own: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """The keys of a model's section that its data share with others of a kind: none of files, of folds or of parts."""
    cls = DATASETS[dataset]
    shared = set(cls.keys()) - set(cls.PATH_KEYS) - {*TRAINING_PARTS, "skip_empty", "root"}
    if own.get("dataset") != dataset:
        shared &= {"white_above"}
    return {key: value for key, value in own.items() if key in shared} | {"dataset": dataset}


def _existing(other: str, expected: str, names: Sequence[str] | Mapping[str, str]) -> str:
    if other in names:
        return other
    path = user_path(other, "--data")
    if not path.exists():
        near = path_hint(path) or nearest(other, names)
        raise UserError(f"--data {other}: no such file or folder{near}; expected {expected}")
    return str(path)


def _overrides(cls: type[Options], overrides: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for given in overrides:
        name, equals, text = given.partition("=")
        key = name.strip().removeprefix("data.")
        if not equals or not key:
            raise UserError(f"--set {short(given)}: expected data.KEY=VALUE, for example --set data.label_column=msi")
        if not has_key(cls, key):
            known = [k for k in cls.keys() if k not in IN_VAIN]  # noqa: SIM118
            raise UserError(f"--set {short(given)}: unknown key{nearest(key, known)} (known: {listed(known, 40)})")
        if key in IN_VAIN:
            raise UserError(f"--set {short(given)}: is not for evaluate: {IN_VAIN[key]}")
        if key in found:
            raise UserError(f"--set data.{key}: given twice")
        found[key] = parse_yaml(text, f"--set data.{key}")
    return found


def bags_are_slides(section: Mapping[str, Any]) -> bool:
    """Whether the bags of a section `data` are known to be slides, not patients. A manifest's may be either, and those
    of a file of a whole data set, too."""
    of_files = section.get("dataset") == "features" and not str(section.get("path")).lower().endswith(FEATURE_FILES)
    return of_files and section.get("bag", "slide") == "slide"


def load_data(section: GivenBags) -> BagCollection:
    """The bags, read and checked as those of a study are, but for what training alone needs: splits, and both classes.
    `UserError` in the words of this command."""
    try:
        return section.load_pool(EVALUATION)
    except UserError as error:
        raise UserError(str(error).replace("data.path", "--data")) from None


def check_fits(stored: StoredModel, section: GivenBags, name: str) -> None:
    """`UserError` for what the sections alone can tell: another resolution than that of the model. name: the
    model's."""
    own, here = stored.card.sections.get("data", {}).get("mpp"), getattr(section, "mpp", None)
    if own is not None and here is not None and abs(own - here) > 1e-9:
        raise UserError(f"data.mpp: patches of {here:g} µm per pixel; {name} was trained on patches of {own:g}")


def check_instances(stored: StoredModel, pool: BagCollection, what: str, name: str) -> None:
    """`UserError` for instances that are none of the model's. what: the data as the user named them; name: the
    model's."""
    shape = stored.model.shape
    if pool.shape != shape:
        raise UserError(f"--data {what}: {_kind(pool.shape)}; {name} takes {_kind(shape)}")
    encoder = stored.card.encoder
    if isinstance(pool, FeatureCollection) and are_other_encoders(pool.extractor, encoder):
        raise UserError(f"--data {what}: vectors of the encoder {pool.extractor!r}; {name} was trained on vectors of "
                        f"{encoder!r}")  # fmt: skip


def notes_on_data(stored: StoredModel, section: GivenBags, pool: BagCollection, name: str) -> list[str]:
    """Sentences on the data that a user should read beside the numbers."""
    notes = list(pool.notes)
    card = stored.card
    if isinstance(pool, FeatureCollection):
        if card.tiles and pool.tiles.scale and card.tiles != pool.tiles.scale:
            notes.append(f"tiles of {pool.tiles.scale}; {name} was trained on tiles of {card.tiles}")
        if bool(card.encoder) != bool(pool.extractor):
            known, unknown = ("model", "data") if card.encoder else ("data", "model")
            said = card.encoder or pool.extractor
            notes.append(f"the encoder of the {unknown} is not known, that of the {known} is {said}")
        return notes
    own, here = card.sections.get("data", {}).get("mpp"), getattr(section, "mpp", None)
    if (own is None) != (here is None):
        told, of = (own, name) if own is not None else (here, "these data")
        notes.append(f"patches of {of} are of {told:g} µm per pixel, the others are pixels as they are: whether both "
                     "are of one resolution is not known")  # fmt: skip
    return notes


def _kind(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"vectors of {shape[0]:,} dimensions"
    return f"patches of {shape[2]}×{shape[1]} pixels with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
