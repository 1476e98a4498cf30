"""Studies of data sets with given bags, on synthetic colon images: folds, rows, predictions and students."""

from __future__ import annotations

import io
import json

import numpy as np
import pandas as pd
import pytest

from d2l_study.data import SyntheticColonBags
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.cost import work
from d2l_study.study.plan.data_checksums import DataChecksums
from d2l_study.study.plan.plan import make_plan
from d2l_study.study.space.load import load_space
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

DATA = SyntheticColonBags(images=12, side=60, nuclei=6.0, folds=3)
TEACHER = TeacherConfig(feature_width=16, attention_width=8, steps=4, eval_every=2, select="loss")
STUDENT = StudentConfig(feature_width=16, steps=4, eval_every=2, start="teacher", augment="none")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("D2L_CACHE", str(tmp_path_factory.getbasetemp() / "given-bags"))


def request(root, stage, config_id, replicates, teachers=()):
    sections = {"data": DATA.resolved().to_dict(), "teacher": TEACHER.to_dict(), "student": STUDENT.to_dict()}
    if stage == "teacher":
        sections.pop("student")
    return TrialRequest(
        root=str(root), study="s", config_id=config_id, label="none", stage=stage, sections=sections,
        replicates=replicates, base_seed=5, data_checksum=DATA.load_pool().checksum, resources=Resources().to_dict(),
        keep_weights="all", code_version="test", teachers=teachers,
    )  # fmt: skip


def test_a_study_over_folds_keeps_global_bag_numbers_and_pairs_students_with_their_folds(tmp_path):
    teacher, student, numbers = "aa" * 10, "bb" * 10, (0, 1, 2, 4)
    assert set(run_trial(request(tmp_path, "teacher", teacher, numbers)).values()) == {"done"}
    assert set(run_trial(request(tmp_path, "student", student, numbers, (teacher,))).values()) == {"done"}
    assert set(run_trial(request(tmp_path, "oracle", "cc" * 10, (1,))).values()) == {"done"}
    ledger = StudyFolder(LocalStorage(tmp_path), "s").ledger
    pool = DATA.load_pool()
    tested, sets = [], {}
    for stage in (teacher, student):
        for number in numbers:
            row = ledger.read(stage, number)["row"]
            assert (row["repeat"], row["fold"]) == divmod(number, 3)
            assert (row["partition"], row["fold_count"]) == ("dealt folds", 3)
            sets.setdefault(row["test_set"], set()).add(tuple(DATA.replicate(pool, number, 5).test.number))
            assert (
                row["train_bags"] == 4
                and row["labels_used"] == 4 + 4
                and row["test_instances"] > 0
                and "instance_auc_within" in row
            )
            frame = pd.read_parquet(io.BytesIO(ledger.read_file(stage, number, "predictions.parquet")))
            problem = DATA.replicate(pool, number, 5)
            bags = frame[(frame["split"] == "test") & (frame["level"] == "bag")]
            assert bags["bag_index"].tolist() == problem.test.number.tolist()
            assert bags["label"].tolist() == pool.bags.label[bags["bag_index"]].tolist()
            instances = frame[(frame["split"] == "test") & (frame["level"] == "instance")]
            assert np.array_equal(instances["bag_index"], pool.bags.bag_of[instances["index"]])
            assert set(instances["bag_index"]) == set(bags["bag_index"])
            np.testing.assert_allclose(instances[["x", "y"]], pool.xy[instances["index"]], rtol=1e-6)
            assert np.array_equal(instances["image"], pool.image[instances["index"]]) and bags["x"].isna().all()
            assert {"instance_ap_within", "instance_dice_tuned", "instance_dice_within_tuned"} <= row.keys()
            assert "instance_froc" not in row  # nuclei lie on no grid
            if stage == teacher and number < 3:
                tested += bags["bag_index"].tolist()
    assert len(sets) == 4 and all(len(bags) == 1 for bags in sets.values())  # one name for the same bags, and no other
    assert sorted(tested) == list(range(12))  # out-of-fold predictions of every bag, once


def test_a_student_of_a_fold_learns_from_no_other_fold(tmp_path):
    from d2l_study.learning import fit_student, teacher_targets
    from d2l_study.learning.teacher import fit_teacher
    from d2l_study.learning.teacher_model import teacher_model

    pool = DATA.load_pool()
    one, other = (DATA.replicate(pool, number, 5) for number in (0, 1))
    (fitted,) = fit_teacher(TEACHER, [one])
    targets = teacher_targets(teacher_model(TEACHER, one), fitted.params, one)
    with pytest.raises(UserError, match="a teacher of replicate 0 was given to a student of replicate 1"):
        fit_student(STUDENT, [other], {1: [targets]})


TEXT = """\
description: folds
data: {dataset: colon_synthetic, images: 12, side: 60, nuclei: 6, folds: 3}
teacher: {steps: 4, eval_every: 2}
methods: {none: {}, vat: {teacher: {lambda_adv: 1.0}}}
replicates: 4
"""


def test_a_space_says_folds_and_replicates_and_is_estimated_from_the_data(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    plan = make_plan(load_space(path), DataChecksums())
    none, vat = plan.configurations
    counts = DATA.counts()
    assert counts["train_bags"] == 4
    pool = DATA.load_pool()
    assert counts["train_instances"] == pytest.approx(len(pool.instances) / 3)
    assert work(none) == pytest.approx(4 * counts["train_instances"] / 4 * 3 + 2 * counts["val_instances"]
                                       + counts["val_instances"] + counts["test_instances"])  # fmt: skip
    assert work(vat) > work(none)


def test_folds_that_cannot_be_trained_are_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace("folds: 3", "folds: 3, num_bags: [4, 9]"))
    root = tmp_path / "runs"
    with pytest.raises(UserError, match=r"data.num_bags: 9 is more than the 4 training bags of data set"):
        prepare_study(RunOptions(str(path), root=str(root)))
    assert not root.exists()


def test_more_replicates_are_an_extension_and_other_folds_another_study(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    ids = [c.config_id for c in make_plan(load_space(path), DataChecksums()).configurations]
    more = make_plan(load_space(path, replicates=9), DataChecksums())
    assert [c.config_id for c in more.configurations] == ids
    path.write_text(TEXT.replace("folds: 3", "folds: 4"))
    assert not set(ids) & {c.config_id for c in make_plan(load_space(path), DataChecksums()).configurations}
    assert json.dumps(DATA.resolved().to_dict())
