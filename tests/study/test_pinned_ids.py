"""The ids of shipped spaces, written down: a changed default, or a change of how an id is made, shows here.

If this fails, results that exist are no longer found. Give a new key a `neutral=` value. If a default was changed on
purpose, the ids of the spaces that rely on it change, as they must: then write down the new ones. If an unchanged
configuration gives other results than before, add the change to `learning.science_version.CHANGES`, which changes the
ids of the configurations that it names.
"""

import hashlib

import pytest

from d2l_study.study.plan.plan import make_plan
from d2l_study.study.space.load import load_space

PINNED = {
    "smoke": "2:4f83e70063f0",
    "vat_quick": "4:d8b6b90cfe0d",
    "vat_grid": "189:a50b5159bee8",
    "distill_quick": "10:19286d86d275",
    "distill_grid": "126:0cc03be93f0b",
    "regularizers": "20:9db5d8f683f4",
    "vat_tuning": "24:a43840a8c235",
    "reg_tuning": "9:3d94ff814d3c",
    "student_tuning": "48:50267d5a4921",
    "distill_confirm": "16:b3a9b3997baf",
}
"""Of each space a hash of its configurations' ids, for a data set of checksum "pinned"."""


def fingerprint(name):
    return _fingerprint(make_plan(load_space(name, []), lambda data: "pinned").configurations)


def _fingerprint(configurations):
    ids = sorted({c.config_id for c in configurations})
    return f"{len(ids)}:{hashlib.sha256(' '.join(ids).encode()).hexdigest()[:12]}"


@pytest.mark.parametrize("name", PINNED)
def test_the_ids_of_a_shipped_space_are_what_they_were(name):
    assert fingerprint(name) == PINNED[name]


def test_what_a_change_of_results_does_not_touch_keeps_its_ids():
    """Of `regularizers` only mixup has other results since version 1, when all had the fingerprint 20:5de99d8c535d."""
    plan = make_plan(load_space("regularizers", []), lambda data: "pinned")
    versions = {c.method: c.science_version for c in plan.configurations}
    assert versions == {**dict.fromkeys(versions, 1), "mixup": 2}
    assert {e["method"]: e["science_version"] for e in plan.entries()} == versions
    assert _fingerprint(c for c in plan.configurations if c.method != "mixup") == "16:2d93ab4e7bcc"


def test_students_chosen_by_auc_alone_have_other_ties():
    """Of `distill_quick` students and trained references have other results since version 2, when all had the
    fingerprint 10:0a0a19d044ce; chosen by loss they have the same."""
    plan = make_plan(load_space("distill_quick", []), lambda data: "pinned")
    trained = ("student", "bag_label", "oracle")
    assert {c.stage: c.science_version for c in plan.configurations} == {
        "teacher": 1, "attention": 1, **dict.fromkeys(trained, 3)
    }  # fmt: skip
    assert _fingerprint(c for c in plan.configurations if c.stage not in trained) == "4:10a1b3f62354"
    by_loss = make_plan(load_space("distill_quick", ["student.select=loss"]), lambda data: "pinned").configurations
    assert {c.science_version for c in by_loss} == {1} and _fingerprint(by_loss) == "10:7f14d5fbfb4a"


def test_a_changed_value_or_default_changes_the_id():
    plans = [make_plan(load_space("smoke", words), lambda data: "pinned") for words in ([], ["teacher.epsilon=3.5"])]
    first, second = ({c.config_id for c in plan.configurations} for plan in plans)
    assert len(first - second) >= 1
