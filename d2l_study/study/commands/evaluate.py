"""`evaluate`: external validation of trained models on data with labels that they have not seen."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from d2l_study import __version__
from d2l_study.atomic_files import write_whole
from d2l_study.credentials import masked
from d2l_study.data import BagCollection
from d2l_study.data.fingerprint import SharedBags, TrainingMarks, find_shared, joined_marks
from d2l_study.data.given_bags import GivenBags
from d2l_study.device_errors import gpu_errors_in_a_line
from d2l_study.errors import UserError, counted, listed
from d2l_study.inference.evaluated_rows import SCORES, are_ours, write_scores
from d2l_study.inference.evaluated_scores import (
    EvaluatedBags,
    EvaluationFacts,
    score_bags,
    threshold_score,
)
from d2l_study.inference.model_folder import same_weights
from d2l_study.inference.output_folder import (
    check_replaced,
    make_folder,
    output_folder,
    unused_folders_removed,
    writing,
)
from d2l_study.inference.prediction_file import about_model
from d2l_study.study.commands.evaluation_data import (
    TRAINING_PARTS,
    bags_are_slides,
    check_fits,
    check_instances,
    data_section,
    load_data,
    notes_on_data,
)
from d2l_study.study.commands.evaluation_page import METRICS, PAGE, EvaluationTables, ScoredModels, is_ours
from d2l_study.study.commands.predict import model_lines
from d2l_study.study.commands.scoring_device import AUTO, scoring_compute, show_scoring_device
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.trial.model_record import marks_of_runs
from d2l_study.study.trial.model_reference import FoundModel, find_models

MOST_COMPARED = 2
_NOT_COMPARED = {"path", "root", "normalise", *TRAINING_PARTS}
"""Keys that say nothing of how the data of an evaluation are read."""
_HEAD = 64 * 1024
"""Bytes of a file by which it is known: a page's style comes before its text."""


@dataclass(frozen=True)
class EvaluateOptions:
    """The options of `evaluate`, by their names on the command line."""

    run: str
    data: str
    overrides: tuple[str, ...] = ()
    ensemble: bool = False
    out: str | None = None
    allow_shared: bool = False
    leave_out_shared: bool = False
    root: str = "runs"
    replicate: int | None = None
    tracking_uri: str | None = None
    device: str = AUTO


@dataclass(frozen=True)
class _Named:
    """A model that `--run` names, or the models of a trial that are an ensemble. name: for messages and tables."""

    name: str
    found: tuple[FoundModel, ...]
    names: tuple[str, ...]
    ensemble: bool

    def marks(self) -> TrainingMarks | None:
        """The bags that any of them was trained on or selected by; None where that is not known."""
        first = self.found[0]
        if first.root is None:
            return first.loaded.record.trained_on
        ledger = Ledger(open_storage(first.root))
        return marks_of_runs(ledger, first.config_id, [one.replicate for one in self.found])


@gpu_errors_in_a_line()
@unused_folders_removed()
def run_evaluate(options: EvaluateOptions) -> int:
    """Evaluate the models, print the tables, and write the files. Returns the exit code.

    `UserError` for what is wrong with the options, the models or the data, and for bags that a model was trained on.
    `MachineError` where a GPU fails.
    """
    out = _checked_folder(options)
    compute = scoring_compute(options.device)
    models = _find(options, compute.device)
    section = data_section(models[0].found[0].loaded.stored, options.data, options.overrides)
    notes = _other_keys(options, models, section)
    for one in models:
        check_fits(one.found[0].loaded.stored, section, one.name)
        print("\n".join(_model_lines(one)), flush=True)
    show_scoring_device(compute)
    pool = load_data(section)
    for one in models:
        stored = one.found[0].loaded.stored
        check_instances(stored, pool, options.data, one.name)
        notes += [note for note in notes_on_data(stored, section, pool, one.name) if note not in notes]
    bags, shared = _without_shared(options, models, pool, section)
    print(f"data:     {options.data}: {_counts(bags)}")
    for note in notes:
        print(f"          {note}")
    for i, sentence in enumerate(shared):
        print(f"{'' if i else 'shared:':<10}{sentence}")
    print(flush=True)
    scored = [_scored(one, bags) for one in models]
    tables = EvaluationTables(bags, scored)
    print("\n".join(tables.lines()), flush=True)
    if out is not None:
        facts = _facts(options, models, section, bags, notes, shared)
        files = tables.files(facts)
        with writing(out):
            about = {name: about_model(found.loaded) for one in models
                     for name, found in zip(one.names, one.found, strict=True)}  # fmt: skip
            write_scores(out / SCORES, [model for one in scored for model in one.all], bags, options.data, about)
            for name, data in files.items():
                write_whole(out / name, data)
        print(f"\nwritten:  {out}: {', '.join([*files, SCORES])}")
    return 0


def _checked_folder(options: EvaluateOptions) -> Path | None:
    if options.allow_shared and options.leave_out_shared:
        raise UserError("--allow-shared --leave-out-shared: one of both: bags of training are evaluated, or left out")
    if options.ensemble and options.replicate is not None:
        raise UserError(f"--replicate {options.replicate}: --ensemble takes all replicates; leave one of both out")
    if options.out is None:
        return None
    out = output_folder(options.out)
    if out.is_dir() and os.path.exists(options.data) and out.samefile(options.data):  # noqa: PTH110 -- never raises
        raise UserError(f"--out {options.out}: is the folder of --data, where {SCORES} and {METRICS} would be read as "
                        "tables of the data the next time; name another folder")  # fmt: skip
    for name in (METRICS, PAGE):
        check_replaced(out / name, lambda path, name=name: is_ours(name, _head(path)), "evaluate")  # type: ignore[misc]
    check_replaced(out / SCORES, are_ours, "evaluate")
    make_folder(out)
    return out


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


# ---- models
def _find(options: EvaluateOptions, device: str) -> list[_Named]:
    references = _references(options.run)
    if not all(references) or len(references) > MOST_COMPARED:
        raise UserError(
            f"--run {options.run}: {len(references)} models; expected one, or two with a comma between them"
        )
    taken: set[str] = set()
    models = []
    for reference in references:
        found = find_models(
            reference, options.root, options.replicate, options.tracking_uri, options.ensemble, device=device
        )
        if options.ensemble and len(found) < 2:
            raise UserError(f"--ensemble: --run {reference} has one model with stored weights; an ensemble needs two")
        own = [one.loaded.name for one in found]
        name = own[0]
        if options.ensemble:
            card = found[0].loaded.stored.card
            name = f"{card.stage} {trial_id(found[0].config_id)} ×{len(found)}"
        name = _free(name, taken)
        names = tuple(_free(text, taken) for text in own) if options.ensemble else (name,)
        models.append(_Named(name, tuple(found), names, options.ensemble))
    if len(models) == MOST_COMPARED:
        one, other = ([each.loaded.stored for each in named.found] for named in models)
        if len(one) == len(other) and all(map(same_weights, one, other)):
            raise UserError(f"--run {options.run}: both are the same model; expected one, or two that differ")
    return models


def _references(run: str) -> list[str]:
    """The models that `--run` names, with a comma between them. A comma in the name of a folder that is there is none
    between models."""
    pieces = run.split(",")
    one_or_two = [[run], *([",".join(pieces[:at]), ",".join(pieces[at:])] for at in range(len(pieces) - 1, 0, -1))]
    for texts in one_or_two:
        if all("," not in text or _is_there(text.strip()) for text in texts):
            return [text.strip() for text in texts]
    return [text.strip() for text in pieces]


def _is_there(text: str) -> bool:
    return os.path.exists(os.path.expanduser(text))  # noqa: PTH110, PTH111 -- never raise, whatever the text


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if another model has it."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} ({number})"
    taken.add(free)
    return free


def _model_lines(one: _Named) -> list[str]:
    first = one.found[0]
    if not one.ensemble:
        return model_lines(first)
    numbers = listed((found.replicate for found in one.found), 20)
    return [
        f"model:    ensemble of {counted(len(one.found), 'model')}: {first.loaded.stored.card.stage} "
        f"{first.config_id[:10]} of study {first.loaded.stored.card.study}, replicates {numbers}",
        "          the mean of their probabilities; thresholds are the means of theirs",
    ]


def _scored(one: _Named, bags: EvaluatedBags) -> ScoredModels:
    members = [score_bags(found.loaded, bags, name, _model_facts(found))
               for found, name in zip(one.found, one.names, strict=True)]  # fmt: skip
    if not one.ensemble:
        return ScoredModels.of(members, None, {})
    first = one.found[0]
    card = first.loaded.stored.card
    facts = {
        "model": f"ensemble of {len(members)}: the mean of the members' probabilities", "study": card.study,
        "trial": first.config_id, "replicates": listed((found.replicate for found in one.found), 40),
    }  # fmt: skip
    whole = ScoredModels.of(members, one.name, facts)
    assert whole.ensemble is not None
    facts |= _threshold_facts(whole.ensemble.bag_threshold, whole.ensemble.instance_threshold,
                              "the mean of the members' thresholds, as probabilities")  # fmt: skip
    return whole


def _model_facts(found: FoundModel) -> dict[str, str]:
    model = found.loaded
    card, record = model.stored.card, model.record
    network = model.stored.model
    facts = {
        "model": f"{card.stage}, {network.extractor} with {network.pooling} pooling", "study": card.study,
        "trial": found.config_id, "replicate": f"{found.replicate}" + (f", {found.choice}" if found.choice else ""),
        "takes": ("vectors of " if len(model.shape) == 1 else "patches of ") + "×".join(map(str, model.shape)),
        "encoder": card.encoder, "tiles": card.tiles,
        "its own data": ", ".join(f"{record.counts[key]:,} {text}" for key, text in (
            ("train_bags", "training bags"), ("val_bags", "validation bags"), ("test_bags", "test bags"))
            if key in record.counts) + (f", data set {card.sections['data'].get('dataset')}"
                                        if card.sections.get("data") else ""),
    }  # fmt: skip
    facts |= _threshold_facts(model.bag_threshold, model.instance_threshold, "set on the validation bags")
    if record.temperature is not None:
        facts["temperature"] = f"{record.temperature:.3f}, fitted to the validation bags"
    for name, text in (("bag_auc", "AUC of its own test bags"), ("instance_auc", "AUC of their instances")):
        if name in record.metrics:
            facts[text] = f"{record.metrics[name].value:.3f}"
    return facts


def _threshold_facts(bag: float | None, instance: float | None, how: str) -> dict[str, str]:
    return {
        f"threshold of {level}": "not known" if value is None else
        f"logit {value:.3f}, score {threshold_score(value):.3f}, {how}{without}"
        for level, value, without in (("bags", bag, ""), ("instances", instance, ", without instance labels"))
    }  # fmt: skip


# ---- data
def _other_keys(options: EvaluateOptions, models: Sequence[_Named], section: GivenBags) -> list[str]:
    """A note where the second model's keys would have the data read otherwise. section: by those of the first."""
    if len(models) < MOST_COMPARED:
        return []
    first, second = models
    try:
        other = data_section(second.found[0].loaded.stored, options.data, options.overrides).to_dict()
    except UserError:  # of another kind: `check_instances` says so
        return []
    ours = section.to_dict()
    differ = sorted(key for key in ours if key in other and ours[key] != other[key] and key not in _NOT_COMPARED)
    if not differ:
        return []
    values = ", ".join(f"data.{key}: {_value(ours[key])}, not {_value(other[key])}" for key in differ)
    return [f"the data are read as {first.name} reads them, and {second.name} reads others: {values}; --set "
            f"data.{differ[0]}=… names another value for both"]  # fmt: skip


def _value(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _counts(bags: EvaluatedBags) -> str:
    known = int(bags.known.sum())
    of_bags = f"{counted(len(bags.label), 'bag')} ({int((bags.label == 1).sum()):,} positive)"
    instances = f"{len(bags.instance_label):,} instances ({known:,} of known label)"
    alone = bags.patients == len(bags.label)
    whose = ", each a patient of its own" if alone else f" of {counted(bags.patients, 'patient')}"
    return f"{of_bags}{whose}; {instances}"


def _without_shared(
    options: EvaluateOptions, models: Sequence[_Named], pool: BagCollection, section: GivenBags
) -> tuple[EvaluatedBags, list[str]]:
    """The bags to evaluate, and sentences on those that a model was trained on or selected by."""
    marks = [one.marks() for one in models]
    said = [f"which bags {one.name} was trained on is not known here: shared ones cannot be found"
            for one, known in zip(models, marks, strict=True) if known is None]  # fmt: skip
    known = [one for one in marks if one is not None]
    if not known:
        return EvaluatedBags.of(pool), said
    own = [one.found[0].loaded.stored.card.sections.get("data", {}) for one in models]
    shared = find_shared(joined_marks(known), pool, bags_are_slides(section.to_dict()), all(map(bags_are_slides, own)))
    if not shared:
        return EvaluatedBags.of(pool), [*said, "no bag is one that training has seen (by content, name and patient)"]
    kinds = _shared_kinds(shared)
    count, rest = len(shared.bags), len(pool.bags) - len(shared.bags)
    what = f"{count:,} of {counted(len(pool.bags), 'bag')} {'are' if count != 1 else 'is'} of the training"
    if options.allow_shared:
        return EvaluatedBags.of(pool), [
            *said,
            f"{what}, and evaluated too (--allow-shared): the numbers flatter",
            *kinds,
        ]
    if not options.leave_out_shared:
        others = f"--leave-out-shared evaluates the other {rest:,}, " if rest and count else ""
        raise UserError(f"--data {options.data}: {what}: {'; '.join(kinds)}; {others}--allow-shared evaluates all")
    if not rest:
        raise UserError(f"--leave-out-shared: {options.data}: all {counted(count, 'bag')} are of the training: "
                        f"{'; '.join(kinds)}")  # fmt: skip
    same = ["these data hold bags of the training, so the others are of the same collection: no external validation"]
    return EvaluatedBags.of(pool, shared.bags), [
        *said, f"{what}, and left out (--leave-out-shared)", *kinds, *(same if shared.content else []),
    ]  # fmt: skip


def _shared_kinds(shared: SharedBags) -> list[str]:
    found = [
        f"{counted(len(names), 'bag')} {text}: {listed(names, 5)}"
        for names, text in ((shared.content, "of the same content"), (shared.name, "of the same name, other content"),
                            (shared.group, "of the same patient"),
                            (shared.patient_there, "named as a patient of the training"),
                            (shared.bag_there, "of a patient who is named as a bag of the training")) if names
    ]  # fmt: skip
    return found + [f"{shared.instances:,} of the same instances"] * bool(shared.instances)


def _facts(
    options: EvaluateOptions, models: Sequence[_Named], section: GivenBags, bags: EvaluatedBags, notes: Sequence[str],
    shared: Sequence[str],
) -> EvaluationFacts:  # fmt: skip
    keys = {key: value for key, value in section.to_dict().items()
            if value is not None and key not in (*TRAINING_PARTS, "normalise")}  # fmt: skip
    versions = {"d2l-study": __version__, "Python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in ("torch", "numpy", "scipy")}
    words = [word for word in sys.argv[1:] if word]
    return EvaluationFacts(
        f"{' and '.join(one.name for one in models)} on {Path(options.data).name}",
        [("data", options.data), ("bags", _counts(bags)), ("checksum", bags.pool.checksum),
         ("read as", ", ".join(f"{key}: {value}" for key, value in keys.items()))],
        notes, shared, masked(shlex.join(["d2l", *words])) if words[:1] == ["evaluate"] else "", versions,
    )  # fmt: skip
