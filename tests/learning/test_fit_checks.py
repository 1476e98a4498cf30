"""What does not go together is said in the user's words, by every function that fits, before anything is trained."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from vector_bags import vector_replicates

from d2l_study.data.pool import Bags
from d2l_study.errors import UserError
from d2l_study.learning import (
    Compute,
    StudentConfig,
    TeacherConfig,
    attention_reference,
    fit_reference,
    fit_student,
    fit_teacher,
    teacher_targets,
)
from d2l_study.learning.class_maps import fit_class_map
from d2l_study.learning.packed.training import fit_teachers
from d2l_study.learning.references import pooled_reference, smoothed_reference
from d2l_study.learning.teacher_model import teacher_model

TEACHER = TeacherConfig(extractor="mlp", feature_width=4, attention_width=2, steps=2)
STUDENT = StudentConfig(network="mlp", feature_width=4, augment="none", steps=2)
VECTORS = "those of data set vectors are vectors of 7 numbers"


def packed(config, replicates):
    return fit_teachers([(config, replicate) for replicate in replicates])


def student(config, replicates):
    model = teacher_model(TEACHER, replicates[0])
    targets = {
        r.number: [teacher_targets(model, model.init(np.random.default_rng(0)), r)] * config.teachers
        for r in replicates
    }  # fmt: skip
    return fit_student(config, replicates, targets)


def reference(config, replicates):
    return fit_reference("bag_label", config, replicates)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"extractor": "lenet"}, f"teacher.extractor: lenet is a network of image patches; {VECTORS}"),
        *(({"augment": kind}, f"teacher.augment: {kind} changes image patches; {VECTORS}")
          for kind in ("shift", "affine", "dihedral", "histology")),
        ({"lambda_noise": 1.0, "noise_kind": "uniform"},
         f"teacher.noise_kind: uniform is over the range of pixels; {VECTORS}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fit", [fit_teacher, packed])
def test_a_teacher_that_does_not_go_with_vectors_is_refused(fit, changes, said):
    assert all(fitted.status == "done" for fitted in fit(TEACHER, vector_replicates([6, 7])))
    with pytest.raises(UserError, match=said):
        fit(dataclasses.replace(TEACHER, **changes), vector_replicates([6, 7]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"network": "resnet"}, f"student.network: resnet is a network of image patches; {VECTORS}"),
        *(({"augment": kind}, f"student.augment: {kind} changes image patches; {VECTORS}")
          for kind in ("shift", "affine", "dihedral", "histology")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fit", [student, reference])
def test_a_student_that_does_not_go_with_vectors_is_refused(fit, changes, said):
    assert fit(STUDENT, vector_replicates([6]))[0].status == "done"
    with pytest.raises(UserError, match=said):
        fit(dataclasses.replace(STUDENT, **changes), vector_replicates([6]))


def test_networks_of_vectors_and_of_larger_or_coloured_patches_are_refused(make_replicate, tiny):
    """Of grey patches of 16 × 16 pixels."""
    replicate = make_replicate()
    with pytest.raises(UserError, match=r"teacher.extractor: mlp is for vectors; the instances of data set mnist are"):
        fit_teacher(dataclasses.replace(tiny, extractor="mlp"), [replicate])
    with pytest.raises(UserError, match=r"student.augment: histology needs colour patches \(3 channels\)"):
        reference(StudentConfig(augment="histology"), [replicate])
    smaller = dataclasses.replace(replicate.pool, instances=replicate.pool.instances[:, :, :12, :])
    with pytest.raises(UserError, match="lenet needs patches of at least 16×16 pixels; those of data set mnist have"):
        fit_teacher(tiny, [replicate, dataclasses.replace(replicate, number=1, pool=smaller)])


@pytest.mark.parametrize(
    ("fit", "config"),
    [(fit_teacher, TEACHER), (packed, TEACHER), (student, STUDENT), (reference, STUDENT),
     (lambda *given: fit_class_map("cam", *given), STUDENT)],
)  # fmt: skip
def test_a_replicate_that_lacks_bags_is_named(fit, config):
    first, second = vector_replicates([6, 7])
    for part, said in (
        ("train", "replicate 1 has no training bags"), ("test", "replicate 1 has no test bags"),
        ("val", "select: auc needs validation bags; replicate 1 has none"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            fit(config, [first, dataclasses.replace(second, **{part: Bags.empty()})])


@pytest.mark.parametrize("fit", [fit_teacher, reference, lambda *given: fit_class_map("cam", *given),
                                 lambda config, given: fit_student(config, given, {})])  # fmt: skip
def test_without_a_replicate_there_is_nothing_to_fit(fit):
    with pytest.raises(UserError, match="replicates: none are given"):
        fit(TEACHER if fit is fit_teacher else STUDENT, [])


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("by_turns", [True, False])
def test_the_last_snapshot_needs_no_validation_bag(by_turns):
    whole = vector_replicates([6, 7])
    without = [dataclasses.replace(replicate, val=Bags.empty()) for replicate in whole]
    config, compute = dataclasses.replace(TEACHER, select="last"), Compute(packed=not by_turns)
    for found, wanted in zip(fit_teacher(config, without, compute=compute), fit_teacher(config, whole), strict=True):
        assert found.logits["test", "bag"] == pytest.approx(wanted.logits["test", "bag"], abs=1e-5)
        assert found.metrics["bag_auc"] == pytest.approx(wanted.metrics["bag_auc"])
        assert np.isnan([found.metrics["val_bag_auc"], found.metrics["instance_threshold"]]).all()
    assert student(dataclasses.replace(STUDENT, select="last"), without[:1])[0].status == "done"


@pytest.mark.parametrize(
    "read", [attention_reference, pooled_reference, lambda *given: smoothed_reference(*given, neighbours=2)]
)
def test_a_teacher_that_failed_cannot_be_read(read):
    (replicate,) = vector_replicates([6])
    with pytest.raises(UserError, match=r"replicate 0: its teacher has no parameters \(it failed\)"):
        read(teacher_model(TEACHER, replicate), {}, replicate)


def test_the_checks_of_a_plan_need_no_torch():
    code = "import sys, d2l_study.learning.fit_checks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
