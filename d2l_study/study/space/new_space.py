"""A first space of one's own: a short file with comments, on the recipe `robust` (`d2l new`)."""

from __future__ import annotations

import os
from pathlib import Path

from d2l_study.atomic_files import write_whole
from d2l_study.data import DATASETS
from d2l_study.errors import UserError
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
  path: manifest.csv          # columns bag, label, path; optional group, split, x, y, instance_label
  cut: whole                  # each path is one instance; grid or points: instances are cut out of images
""",
    "features": """\
data:
  dataset: features
  path: slides.csv            # columns slide_id and label, and case_id for the patient
  root: features/             # the folder of the slides' .h5, .pt or .npy files
""",
}

_TEACHER = """\
description: {question}
recipe: robust                # settings under which nearly every run converges: `d2l keys recipe`
{data}
# The arms that are compared. Each may set any key of data and teacher: `d2l keys teacher`
methods:
  none: {{}}                    # plain attention MIL
  vat: {{teacher: {{lambda_adv: 0.3, epsilon: 2}}}}   # + virtual adversarial training

replicates: 5                 # of each combination
"""

_STUDENT = """\
description: {question}
recipe: robust                # settings under which nearly every run converges: `d2l keys recipe`
{data}
student:
  start: teacher              # from the teacher's weights
  temperature: 2              # softness of the teacher's labels

# Every student learns from every teacher. Arms of students may set any key of student: `d2l keys student`
teachers:
  none: {{}}                    # plain attention MIL
  vat: {{teacher: {{lambda_adv: 0.3, epsilon: 2}}}}   # + virtual adversarial training
methods:
  student: {{}}

# What a student must beat: its teacher trained as long with its augmentation, and its teacher read by the
# highest instance score.
references: [matched, pooled]

replicates: 5                 # of each combination
"""


def write_new_space(file: str, dataset: str, students: bool) -> Path:
    """Write a first space and return its path.

    dataset: a key of `DATASETS`; students: a space of teachers and students. `UserError` for an unknown data set, if
    the file is there already, if its folder is not, or if its name does not end in .yaml.
    """
    if dataset not in DATASETS:
        raise UserError(f"--data {dataset}: unknown data set{did_you_mean(dataset, DATASETS)}")
    path = Path(file)
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{file}: expected a name that ends in .yaml")
    if os.path.lexists(path):
        raise UserError(f"{file}: is there already; give another name")
    if not path.parent.is_dir():
        raise UserError(f"{file}: no folder {path.parent}")
    question = "Does a student label instances better than its teacher?" if students else "Does VAT help?"
    data = _DATA.get(dataset, f"data:\n  dataset: {dataset}\n")
    write_whole(path, (_STUDENT if students else _TEACHER).format(question=question, data=data).encode())
    return path
