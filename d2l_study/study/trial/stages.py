"""What a trial of each stage trains, and what of it is committed. Stages differ in this file alone."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from d2l_study.data import DATASETS, Replicate
from d2l_study.data.collection import BagCollection, tested_places
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.folds import partition_of
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.part_config import PART_TEACHER, TrainingPart
from d2l_study.learning.student_config import SmoothingConfig, StudentConfig
from d2l_study.options import Options
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.run_files import (
    CURVE,
    GENERATIONS,
    PREDICTIONS,
    SCORE_MAP_REPLICATE,
    SCORE_MAPS,
    WEIGHTS,
)
from d2l_study.study.space.keys import CLASS_MAPS, WITH_SCORE_MAPS, WITHOUT_WEIGHTS, scientific
from d2l_study.study.trial import score_maps
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    from d2l_study.inference.model_file import ModelCard, StoredModel
    from d2l_study.learning.distillation import TeacherTargets
    from d2l_study.learning.prediction import Compute
    from d2l_study.learning.training_result import FittedStudent, FittedTeacher
    from d2l_study.models import MilModel

    Fitted = FittedTeacher | FittedStudent
    FitFunction = Callable[[TrialRequest, Sequence[Replicate], Ledger, dict[str, Any]], Sequence[Fitted]]
    """(request, replicates, ledger, options) -> the fitted models, in the order of the replicates. options: the
    arguments that all fitting functions of `learning` have, such as `compute` and `report`."""


def stored_teacher(ledger: Ledger, config: str, replicate: int, fresh_of: str | None = None) -> StoredModel:
    """A committed teacher with its weights. fresh_of: the study whose own record goes first (`--fresh`). `UserError` if
    the weights are not in the store."""
    from d2l_study.inference.model_file import from_bytes

    try:
        data = ledger.read_file(config, replicate, WEIGHTS, fresh_of)
    except (FileNotFoundError, KeyError):
        raise UserError(
            f"the weights of its teacher {trial_id(config)} r{replicate:03d} are not in the store"
        ) from None
    return from_bytes(data, f"{Ledger.run_key(config, replicate)}/{WEIGHTS}")


def _learned_targets(
    request: TrialRequest, config: StudentConfig, replicate: Replicate, ledger: Ledger, compute: Compute
) -> list[TeacherTargets]:
    """What the teachers of a student say about a replicate's instances: of each member of its ensemble, where the
    student is cross-fitted with the labels of the member's part teachers.

    The request names the members first, then the part teachers of the first member, of the second, …"""
    from d2l_study.learning.cross_fitting import cross_fitted_targets, part_targets
    from d2l_study.learning.distillation import teacher_targets

    found = []
    for member, config_id in enumerate(request.teachers[: config.teachers]):
        stored = stored_teacher(ledger, config_id, replicate.number, request.fresh_of)
        _check_part(stored, None)
        targets = teacher_targets(stored.model, stored.params, replicate, compute, config.distils_unlabelled)
        first = config.teachers + member * config.cross_fit
        labelled = []
        for part, config_id in enumerate(request.teachers[first : first + config.cross_fit]):
            left_out = TrainingPart(config.cross_fit, part)
            stored = stored_teacher(ledger, config_id, replicate.number, request.fresh_of)
            _check_part(stored, left_out)
            labelled.append(part_targets(stored.model, stored.params, replicate, left_out, compute))
        found.append(cross_fitted_targets(targets, labelled, replicate) if labelled else targets)
    return found


def _check_part(stored: StoredModel, left_out: TrainingPart | None) -> None:
    """`UserError` unless a stored teacher was trained without this part of the bags (None: on all of them)."""
    said = stored.card.sections.get("part")
    if said != (None if left_out is None else left_out.to_dict()):
        wanted = "all training bags" if left_out is None else f"all but part {left_out.part} of {left_out.cross_fit}"
        raise UserError(
            f"its teacher {trial_id(stored.card.config_id)} was trained with part {said} left out; expected one that "
            f"was trained on {wanted}"
        )


def _fit_teacher(
    request: TrialRequest, replicates: Sequence[Replicate], ledger: Ledger, options: dict[str, Any]
) -> Sequence[Fitted]:
    from d2l_study.learning.teacher import fit_teacher

    return fit_teacher(TeacherConfig(**request.sections["teacher"]), replicates, **options)


def _fit_student(
    request: TrialRequest, replicates: Sequence[Replicate], ledger: Ledger, options: dict[str, Any]
) -> Sequence[Fitted]:
    """A student of a replicate learns from the committed teachers of that replicate, from no others. So does the one
    that takes their weights alone."""
    from d2l_study.learning.student import fit_student

    config = StudentConfig(**request.sections["student"])
    targets = {
        replicate.number: _learned_targets(request, config, replicate, ledger, options["compute"])
        for replicate in replicates
    }
    return fit_student(config, replicates, targets, stage=request.stage, **options)


def _fit_reference(
    request: TrialRequest, replicates: Sequence[Replicate], ledger: Ledger, options: dict[str, Any]
) -> Sequence[Fitted]:
    from d2l_study.learning.references import fit_reference

    return fit_reference(request.stage, StudentConfig(**request.sections["student"]), replicates, **options)


def _fit_class_map(
    request: TrialRequest, replicates: Sequence[Replicate], ledger: Ledger, options: dict[str, Any]
) -> Sequence[Fitted]:
    from d2l_study.learning.class_maps import fit_class_map

    return fit_class_map(request.stage, StudentConfig(**request.sections["student"]), replicates, **options)


def _read_teacher(
    request: TrialRequest, replicates: Sequence[Replicate], ledger: Ledger, options: dict[str, Any]
) -> Sequence[Fitted]:
    """A teacher's attention, its pooled bags or its smoothed instances, without any training."""
    from d2l_study.learning.references import attention_reference, pooled_reference, smoothed_reference

    found, compute = [], options["compute"]
    for replicate in replicates:
        stored = stored_teacher(ledger, request.teachers[0], replicate.number, request.fresh_of)
        if request.stage == "smoothed":
            neighbours = SmoothingConfig(**request.sections["smoothing"]).neighbours
            found.append(smoothed_reference(stored.model, stored.params, replicate, neighbours, compute))
        else:
            read = {"attention": attention_reference, "pooled": pooled_reference}[request.stage]
            found.append(read(stored.model, stored.params, replicate, compute))
    return found


FIT_FUNCTIONS: dict[str, FitFunction] = {
    "teacher": _fit_teacher,
    PART_TEACHER: _fit_teacher,
    "student": _fit_student,
    "matched": _fit_teacher,
    "no_soft_labels": _fit_student,
    "pooled": _read_teacher,
    "smoothed": _read_teacher,
    "no_teacher": _fit_reference,
    "bag_label": _fit_reference,
    "oracle": _fit_reference,
    "attention": _read_teacher,
    "cam": _fit_class_map,
    "peak": _fit_class_map,
}


TRAINED_AS_TEACHERS = tuple(stage for stage, fit in FIT_FUNCTIONS.items() if fit is _fit_teacher)
"""The stages whose networks are teachers, trained by `fit_teacher`."""


def run_results(
    request: TrialRequest, problem: Replicate, result: Fitted, device: str, at: str, keep_weights: bool
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The row of one run, and its files by name, as they are committed.

    at: the time now; keep_weights: whether the file of weights is among them, if the stage has one.
    """
    from d2l_study.learning.undefined_metrics import undefined_metrics

    row = {
        "repeat": problem.repeat, "fold": problem.fold, "seed": request.base_seed, "status": result.status,
        "cause": result.cause, **result.metrics, "best_step": result.best_step, "steps_run": result.steps_run,
        "train_seconds": round(result.train_seconds, 3), "eval_seconds": round(result.eval_seconds, 3),
        "device": device, "precision": request.resources["precision"], "threads": request.resources["threads"],
        "host": platform.node(),
        **_counts(request, problem), "labels_used": _labels_used(request, problem),
        **_visits(request, problem, result), "warning": "; ".join(undefined_metrics(problem)) or None,
        "code_version": request.code_version, "made_by": request.study, "committed_at": at,
    }  # fmt: skip
    files = {CURVE: json.dumps(result.curve).encode()}
    if result.logits:
        files[PREDICTIONS] = _predictions(request.stage, problem, result)
    generations = getattr(result, "generations", [])
    if len(generations) > 1:
        files[GENERATIONS] = json.dumps([vars(generation) for generation in generations]).encode()
    if request.stage in WITH_SCORE_MAPS and problem.number == SCORE_MAP_REPLICATE and result.status == "done":
        try:
            maps = score_maps.score_maps_file(problem, _image_scorer(request, problem, result, device))
        except (UserError, OSError) as error:  # an image that has gone costs the run its pictures, not its result
            maps = None
            row["warning"] = "; ".join(filter(None, (row["warning"], f"no maps: {error}")))
        if maps is not None:
            files[SCORE_MAPS] = maps
    if keep_weights and result.status == "done" and request.stage not in WITHOUT_WEIGHTS:
        files[WEIGHTS] = _weights(request, problem, result)
    return row, files


def _image_scorer(request: TrialRequest, problem: Replicate, result: Fitted, device: str) -> score_maps.ImageScorer:
    """How the trained network scores a whole image."""
    from d2l_study.inference.model_file import StoredModel
    from d2l_study.learning.prediction import Compute

    compute = Compute(device, request.resources["precision"])
    if request.stage in CLASS_MAPS:
        return score_maps.class_map_scorer(result.params, problem, compute)
    return score_maps.sliding_window_scorer(
        StoredModel(_network(request, problem), result.params, _card(request, problem, result)), compute
    )


def _labels_used(request: TrialRequest, problem: Replicate) -> int | None:
    from d2l_study.learning.labels_used import labels_used

    sections = {name: section.to_dict() for name, section in typed_sections(request).items()}
    return labels_used(request.stage, sections, len(problem.train), len(problem.val))


def _counts(request: TrialRequest, problem: Replicate) -> dict[str, Any]:
    """Columns of a run on a fold of given bags: its sizes, and which partition the fold is of. Empty for drawn bags,
    whose sizes are keys of the data section. `test_set` is the same in all runs that were tested on the same bags."""
    if problem.fold is None:
        return {}
    assert isinstance(problem.pool, BagCollection)
    partition, count = partition_of(problem.pool, request.sections["data"]["folds"])
    bags = np.sort(problem.test.number).astype("<i8").tobytes()
    sizes = {f"{name}_instances": len(bags.instance) for name, bags in
             (("train", problem.train), ("val", problem.val), ("test", problem.test))}  # fmt: skip
    return {
        "train_bags": len(problem.train), "test_bags": len(problem.test), **sizes, "partition": partition,
        "fold_count": count, "test_set": f"t{hashlib.sha256(bags).hexdigest()[:11]}",
    }  # fmt: skip


def _visits(request: TrialRequest, problem: Replicate, result: Fitted) -> dict[str, int]:
    """The column `instance_visits` of a run that was trained on instances; empty for others."""
    from d2l_study.learning.instance_visits import student_visits, teacher_visits
    from d2l_study.learning.references import labelled_replicate

    if request.stage in WITHOUT_WEIGHTS:
        return {}
    if "student" not in request.sections:
        config = TeacherConfig(**request.sections["teacher"])
        return {"instance_visits": teacher_visits(config, problem, result.steps_run)}
    ends: dict[int, int] = {}  # generation -> steps up to its end
    for point in result.curve:
        ends[int(point["generation"])] = int(point["step"])
    steps = np.diff([0, *ends.values()]).tolist()
    learned = labelled_replicate(problem) if request.stage == "oracle" else problem
    return {"instance_visits": student_visits(StudentConfig(**request.sections["student"]), learned, steps)}


def _weights(request: TrialRequest, problem: Replicate, result: Fitted) -> bytes:
    from d2l_study.inference.model_file import to_bytes

    return to_bytes(_network(request, problem), result.params, _card(request, problem, result))


def _card(request: TrialRequest, problem: Replicate, result: Fitted) -> ModelCard:
    from d2l_study.inference.model_file import ModelCard

    pool = problem.pool
    made_of = (pool.extractor, pool.tiles.scale) if isinstance(pool, FeatureCollection) else ("", "")
    return ModelCard(
        request.stage, scientific_sections(request), tuple(problem.mean), tuple(problem.std), request.study,
        request.config_id, problem.number, result.metrics.get("instance_threshold"), *made_of,
    )  # fmt: skip


def scientific_sections(request: TrialRequest) -> dict[str, dict[str, Any]]:
    """The sections of a trial without what no result depends on, such as the folder of the user's data."""
    return {name: scientific(section) for name, section in typed_sections(request).items()}


def typed_sections(request: TrialRequest) -> dict[str, Options]:
    """The sections of a trial as instances of their classes, which check them."""
    classes: dict[str, type[Options]] = {
        "data": DATASETS[request.sections["data"]["dataset"]], "teacher": TeacherConfig, "student": StudentConfig,
        "smoothing": SmoothingConfig, "part": TrainingPart,
    }  # fmt: skip
    return {name: classes[name](**values) for name, values in request.sections.items()}


def _network(request: TrialRequest, problem: Replicate) -> MilModel:
    from d2l_study.learning.student import student_model
    from d2l_study.learning.teacher_model import teacher_model

    if "student" not in request.sections:
        return teacher_model(TeacherConfig(**request.sections["teacher"]), problem)
    return student_model(StudentConfig(**request.sections["student"]), problem)


def _predictions(stage: str, problem: Replicate, result: Fitted) -> bytes:
    """The file of predictions: every logit with its label. Columns: replicate, stage, split, level (bag, instance),
    bag_index, index (of an instance, into the pool), label, seen_label, logit; of given bags also group; of
    test instances also label_NAME for further truths and, where they have places, image (its number in the data set), x
    and y.

    label: the true one, before label noise; results are measured by it. seen_label: the one of a bag that training and
    selection saw; it alone may set a threshold or a temperature. It is null for instances, whose labels nobody sees. An
    unknown label (−1) becomes null.
    bag_index: of given bags, the number in the whole data set, of an instance that of its bag. Of drawn bags, the
    number in the split, and −1 for an instance. group: the number of the bag's group (patient, tissue core) in the data
    set, for tests and intervals by patient; where the data name no groups each bag is one of its own.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from d2l_study.learning.evaluation import evaluation_sets

    tables = []
    for (split, level), bags in evaluation_sets(problem).items():
        if (split, level) not in result.logits:
            continue
        count, bag = len(bags), level == "bag"
        label = bags.true_label
        number = np.arange(count) if bag else np.full(count, -1)
        if len(bags.number):
            number = bags.number
        tables.append(
            pa.table({
                "replicate": pa.array(np.full(count, problem.number, np.int32)),
                **{
                    name: pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [value])
                    for name, value in (("stage", stage), ("split", split), ("level", level))
                },
                "bag_index": pa.array(number.astype(np.int32)),
                "index": pa.array(np.arange(count, dtype=np.int32) if bag else bags.instance.astype(np.int32)),
                "label": pa.array(label, mask=label < 0),
                "seen_label": pa.array(bags.label, mask=bags.label < 0 if bag else np.ones(count, bool)),
                "logit": pa.array(result.logits[split, level].astype(np.float32)),
                **({"group": pa.array(problem.pool.group[number].astype(np.int32))}
                   if isinstance(problem.pool, BagCollection) and len(bags.number) else {}),
                **(_of_test_instances(problem) if (split, level) == ("test", "instance") else {}),
            })
        )  # fmt: skip
    out = io.BytesIO()
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), out, compression="zstd")
    return out.getvalue()


def _of_test_instances(problem: Replicate) -> dict[str, Any]:
    """The columns that only the predictions of test instances have: further truths, and where instances stand."""
    import pyarrow as pa

    found = {f"label_{name}": pa.array(truth, mask=truth < 0) for name, truth in problem.test_truths.items()}
    places = tested_places(problem)
    if places is not None:
        image, xy = places
        found["image"] = pa.array(image.astype(np.int32))
        found |= {name: pa.array(xy[:, i].astype(np.float32), mask=np.isnan(xy[:, i])) for i, name in enumerate("xy")}
    return found
