"""The scores that the pictures of the documentation show.

A teacher and its student are trained on MNIST bags, and one of each on synthetic tissue. What they say of single digits
and nuclei of test bags is written down.

    python benchmarks/picture_scores.py --out benchmarks/records/2026-11-27-picture-scores

It takes about a minute of processor time. `make figures` (`benchmarks/figures/`) draws from what it wrote and trains
nothing. Two runs on one machine write the same files; processors round differently.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from options import existing_folder

from d2l_study.data import MnistBags
from d2l_study.data.colon_synthetic import SyntheticColonBags
from d2l_study.data.given_bags import PatchBags
from d2l_study.data.pool import Replicate
from d2l_study.learning import StudentConfig, TeacherConfig, fit_student, fit_teacher, teacher_targets
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.training_result import FittedStudent, FittedTeacher

DIGITS = MnistBags(num_bags=100)
TISSUE = SyntheticColonBags(images=40, side=320, nuclei=45.0, folds=5)
TEACHERS = {"digits": TeacherConfig(lambda_adv=0.5, steps=1500, eval_every=100),
            "tissue": TeacherConfig(lambda_adv=0.5, steps=400, eval_every=50, select="loss")}  # fmt: skip
STUDENTS = {"digits": StudentConfig(start="teacher", augment="affine", generations=2, steps=300, eval_every=50),
            "tissue": StudentConfig(start="teacher", augment="dihedral", steps=200, eval_every=50)}  # fmt: skip
BAGS = 8
"""Test bags of digits that are kept."""
METRICS = ("bag_auc", "instance_auc")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=existing_folder, required=True, help="the record's folder")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    about: dict[str, Any] = {"torch": torch.__version__, "base_seed": 1, "replicate": 0}

    digits = DIGITS.replicate(DIGITS.load_pool(), 0, base_seed=1)
    fitted = _fitted("digits", digits)
    about["digits"] = {"data": asdict(DIGITS), **_settings("digits", *fitted)}
    _write_digits(out / "digits.csv", digits, *fitted)

    tissue = TISSUE.replicate(TISSUE.load_pool(), 0, base_seed=1)
    fitted = _fitted("tissue", tissue)
    about["tissue"] = {"data": asdict(TISSUE), **_settings("tissue", *fitted)}
    _write_nuclei(out / "nuclei.csv", TISSUE, tissue, *fitted)
    (out / "about.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def _fitted(kind: str, replicate: Replicate) -> tuple[FittedTeacher, FittedStudent]:
    config = TEACHERS[kind]
    (teacher,) = fit_teacher(config, [replicate])
    targets = teacher_targets(teacher_model(config, replicate), teacher.params, replicate)
    (student,) = fit_student(STUDENTS[kind], [replicate], {replicate.number: [targets]})
    return teacher, student


def _settings(kind: str, teacher: FittedTeacher, student: FittedStudent) -> dict[str, Any]:
    measured = {name: {key: round(one.metrics[key], 6) for key in METRICS}
                for name, one in (("teacher", teacher), ("student", student))}  # fmt: skip
    return {"teacher": asdict(TEACHERS[kind]), "student": asdict(STUDENTS[kind]), "test": measured}


def _write_digits(path: Path, replicate: Replicate, teacher: FittedTeacher, student: FittedStudent) -> None:
    """A row for each digit of the first test bags. image: its index in the pool, test images last."""
    first = int(replicate.test_instances.instance[0])
    scores = [one.logits["test", "instance"] for one in (teacher, student)]
    test = replicate.test
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["bag", "bag_label", "image", "truth", "teacher_logit", "student_logit"])
        for place in range(test.offsets[BAGS]):
            bag, image = int(test.bag_of[place]), int(test.instance[place])
            logits = [f"{float(one[image - first]):.4f}" for one in scores]
            rows.writerow([bag, int(test.label[bag]), image, int(test.instance_label[place]), *logits])


def _write_nuclei(
    path: Path, data: PatchBags, replicate: Replicate, teacher: FittedTeacher, student: FittedStudent
) -> None:
    """A row for each nucleus of the test images."""
    collection: Any = replicate.pool
    positions, bag_of = collection.bags.select(replicate.test.number)
    names = np.array(collection.names)[replicate.test.number]
    scores = [one.logits["test", "instance"] for one in (teacher, student)]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "image_label", "x", "y", "truth", "teacher_logit", "student_logit"])
        for place, position in enumerate(positions):
            x, y = collection.xy[position]
            logits = [f"{float(one[place]):.4f}" for one in scores]
            truth = int(collection.bags.instance_label[position])
            bag = bag_of[place]
            rows.writerow([names[bag], int(replicate.test.label[bag]), f"{x:.2f}", f"{y:.2f}", truth, *logits])


if __name__ == "__main__":
    main()
