"""A first space of one's own: a short file with comments, on the recipe `robust` (`d2l new`)."""

from __future__ import annotations

import os
from pathlib import Path

from d2l_study.atomic_files import write_whole
from d2l_study.data import DATASETS
from d2l_study.errors import UserError
from d2l_study.nearest_path import path_hint
from d2l_study.study.space.keys import did_you_mean

_DATA = {
    "mnist": """\
data:
  num_bags: [50, 100]         # n: labelled training bags; a list is an axis
  mean_bag_size: 10           # K: instances in a bag, on average
""",
    "manifest": """\
data:
  dataset: manifest
  path: manifest.csv          # columns bag, label (0 or 1), path; optional group, split, x, y, instance_label
  cut: whole                  # each path is one instance; grid or points: instances are cut out of images
  # patch_size: 64            # grid and points: side of a patch in pixels; default 32
  # stride: 64                # grid: pixels from patch to patch; default: patch_size
  # root: images/             # folder that paths begin at; default: that of the table
  folds: 5                    # parts that take turns as test
""",
    "slides": """\
data:
  dataset: manifest
  path: slides.csv            # columns path (the slide), label (0 or 1); optional patient, split, annotation
  cut: grid                   # tiles are cut out of slides
  mpp: 0.5                    # µm per pixel: 0.5 is 20×, 0.25 is 40×
  patch_size: 64              # side of a tile in pixels
  tissue: true                # only tiles of tissue
  # positive_classes: tumour  # where a column annotation names files: the classes that are positive
  # root: slides/             # folder that paths begin at; default: that of the table
  folds: 5                    # parts that take turns as test
teacher:
  extractor: lenet_histology
  augment: histology          # each tile flipped, turned and in another stain
  instances_per_bag: 100      # tiles of a slide that a training step sees
""",
    "features": """\
data:
  dataset: features
  path: slides.csv            # columns slide_id, a label, and case_id for the patient
  root: features/             # the folder of the slides' .h5, .pt or .npy files
  # label_column: msi         # column of the labels, where it is not called label
  # positive: MSI-H           # name of the positive class, where labels are not 0 and 1
  # bag: patient              # all slides of a patient are one bag; default: each slide
  # label_table: clinical.csv # a second table, of patient (or slide) and label
  # splits: splits/           # given splits: a table, or the folder of CLAM's splits_0.csv
  folds: 5                    # parts that take turns as test
  # skip_empty: true          # leave out slides without vectors
""",
}

_STUDENT_KEYS = {
    "slides": """\
  network: lenet_histology
  augment: histology
  instances_per_bag: 100
"""
}
"""What a student needs besides, so that it may start from its teacher."""

_VAT = {"features": "{lambda_adv: 1, epsilon: 5}"}
"""What VAT has where it differs from what was tuned for digits."""
_RADIUS = {"features": "; epsilon: √D/10 to √D/3"}

_TEACHER = """\
description: {question}
recipe: robust                # settings under which nearly every run converges: `d2l keys recipe`
{data}
# The arms that are compared. Each may set any key of data and teacher: `d2l keys teacher`
methods:
  none: {{}}                    # plain attention MIL
  vat: {{teacher: {vat}}}   # + virtual adversarial training{radius}

replicates: 5                 # {replicates}
"""

_STUDENT = """\
description: {question}
recipe: robust                # settings under which nearly every run converges: `d2l keys recipe`
{data}
student:
  start: teacher              # from the teacher's weights
  temperature: 2              # softness of the teacher's labels
  beta: 1                     # weight of the labels of bags, by their highest score
{student}
# Every student learns from every teacher. Arms of students may set any key of student: `d2l keys student`
teachers:
  none: {{}}                    # plain attention MIL
  vat: {{teacher: {vat}}}   # + virtual adversarial training{radius}
methods:
  student: {{}}

# What a student must beat: its teacher trained as long with its augmentation, itself without the teacher's
# labels, and its teacher read by the highest instance score.
references: [matched, no_soft_labels, pooled]

replicates: 5                 # {replicates}
"""


def write_new_space(file: str, dataset: str, students: bool) -> Path:
    """Write a first space and return its path.

    dataset: a key of `DATASETS`, or `slides`, for a manifest of whole slides; students: a space of teachers and
    students. `UserError` for an unknown data set, if
    the file is there already, if its folder is not, or if its name does not end in .yaml.
    """
    known = dict.fromkeys((*_DATA, *DATASETS))
    if dataset not in known:
        raise UserError(f"--data {dataset}: unknown data set{did_you_mean(dataset, known)}")
    path = Path(file)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{file}: expected a name that ends in .yaml")
    if os.path.lexists(path):
        raise UserError(f"{file}: is there already; give another name")
    if not path.parent.is_dir():
        raise UserError(f"{file}: no folder {path.parent}{path_hint(path.parent)}")
    question = "Does a student label instances better than its teacher?" if students else "Does VAT help?"
    data = _DATA.get(dataset, f"data:\n  dataset: {dataset}\n")
    text = _STUDENT if students else _TEACHER
    words = {"replicates": "the five folds once" if "folds: 5" in data else "of each combination",
             "student": _STUDENT_KEYS.get(dataset, ""), "vat": _VAT.get(dataset, "{lambda_adv: 0.3, epsilon: 2}"),
             "radius": _RADIUS.get(dataset, "")}  # fmt: skip
    write_whole(path, text.format(question=question, data=data, **words).encode())
    return path
