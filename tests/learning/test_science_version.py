"""The science version of a configuration rises with the changes that touch its results, and with no others."""

import pytest

import d2l_study
from d2l_study.data import DATASETS, MnistBags
from d2l_study.learning import StudentConfig, TeacherConfig
from d2l_study.learning import science_version as science_version_module
from d2l_study.learning.science_version import CHANGES, FIRST, changes_of, science_version, version_of_keys
from d2l_study.study.ledger.ledger import config_id
from d2l_study.study.space.keys import flat_names, scientific, sections_of

CLASSES = {"data": MnistBags, "teacher": TeacherConfig, "student": StudentConfig}


def version(stage="student", **sections):
    given = {name: sections.get(name, {}) for name in CLASSES}
    built = {name: CLASSES[name](**values) for name, values in given.items() if values is not None}
    return science_version(stage, {name: section.identity() for name, section in built.items()})


def test_the_latest_version_is_that_of_the_last_change():
    assert max(change.version for change in CHANGES) == d2l_study.SCIENCE_VERSION


def test_every_change_names_its_keys_and_leaves_defaults_alone_but_where_it_is_said():
    touched = set()
    for change in CHANGES:
        for name in (change.key, *change.other_keys):
            section, key = name.split(".")
            classes = DATASETS.values() if section == "data" else [CLASSES[section]]
            holders = [cls for cls in classes if key in cls.keys()]  # noqa: SIM118 (a class method)
            assert holders
            if name == change.key and any(getattr(cls(), key) not in change.unless for cls in holders):
                touched.add(name)
    assert touched == {"student.select"}
    assert version("teacher", student=None) == version(student={"select": "last"}) == FIRST


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"data": {"witness_rate": 0.2}}, 2), ({"data": {"witness_rate": 1.0}}, 1),
        ({"teacher": {"mixup": 0.2, "batch_bags": 2}}, 2), ({"student": {"mixup": 0.2}}, 2),
        ({"data": {"num_bags": 50}, "teacher": {"dropout": 0.5}, "student": {"dropout": 0.5}}, 1),
        ({"student": {"select": "auc"}}, 3), ({"student": {"select": "last"}}, 1),
        ({"student": {"select": "auc", "steps": 50, "eval_every": 50}}, 1),  # one validation has no tie
        ({"student": {"select": "auc", "steps": 51, "eval_every": 50}}, 3),
    ],
)  # fmt: skip
def test_what_a_change_touches_has_its_version(sections, expected):
    sections = {**sections, "student": {"select": "loss", **sections.get("student", {})}}
    assert version(**sections) == expected
    flat = {
        name: value for (section, key), name in flat_names(CLASSES).items()
        for value in [scientific(CLASSES[section](**sections.get(section, {}))).get(key)]
    }  # fmt: skip
    assert science_version("student", sections_of(flat)) == expected  # as a stored plan tells it


def test_networks_of_whole_images_do_not_mix():
    assert version("cam", student={"mixup": 0.2}) == 1
    assert version("oracle", student={"mixup": 0.2, "select": "loss"}) == 2
    assert version("oracle", student={"mixup": 0.2}) == 3


def test_a_search_over_a_key_has_the_version_of_its_values():
    assert version_of_keys(["teacher.mixup", "teacher.epsilon"]) == 2 and version_of_keys(["teacher.epsilon"]) == 1
    assert version_of_keys(["student.steps"]) == 3  # some of its values may have ties to settle


def test_an_earlier_code_gave_earlier_versions():
    student = {"student": StudentConfig(mixup=0.2).identity()}
    assert [science_version("student", student, latest) for latest in (None, 3, 2, 1)] == [3, 3, 2, 1]


def test_the_version_is_part_of_the_id(monkeypatch):
    mixed = {"data": {"num_bags": 50}, "teacher": {"mixup": 0.2}}
    plain = {"data": {"num_bags": 50}, "teacher": {}}
    now = [config_id("teacher", sections, "x", 1) for sections in (mixed, plain)]
    assert [change.key for change in changes_of("teacher", mixed)] == ["teacher.mixup"]
    monkeypatch.setattr(science_version_module, "CHANGES", ())
    before = [config_id("teacher", sections, "x", 1) for sections in (mixed, plain)]
    assert now[0] != before[0] and now[1] == before[1]
