"""References that read whole images: for data sets that have images, and named in the user's words elsewhere."""

import pytest

from d2l_study.errors import UserError
from d2l_study.study.plan.cost import work
from d2l_study.study.plan.plan import make_plan
from d2l_study.study.space.load import load_space

SPACE = """
description: Do class maps find nuclei?
data: {%s}
teacher: {steps: 4, feature_width: 16}
student: {steps: 60, eval_every: 3}
teachers: {none: {}, vat: {teacher: {lambda_adv: 1}}}
methods: {student: {}}
references: [cam, peak]
replicates: 3
"""
TISSUE = "dataset: colon_synthetic, images: 12, side: 64, folds: 3"


def write(tmp_path, data: str) -> str:
    (tmp_path / "maps.yaml").write_text(SPACE % data)
    return str(tmp_path / "maps.yaml")


def test_a_class_map_is_trained_once_for_all_teachers(tmp_path):
    plan = make_plan(load_space(write(tmp_path, TISSUE)), "checksum")
    stages = [c.stage for c in plan.configurations]
    assert sorted(stages) == ["cam", "peak", "student", "student", "teacher", "teacher"]
    assert not any(c.teachers for c in plan.configurations if c.stage in ("cam", "peak"))


def test_what_they_cost_is_estimated(tmp_path, monkeypatch):
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    found = {}
    for steps in (60, 120):
        plan = make_plan(load_space(write(tmp_path, TISSUE), [f"student.steps={steps}"]), "checksum")
        found[steps] = next(work(c) for c in plan.configurations if c.stage == "cam")
    assert 0 < found[60] < found[120]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("num_bags: 10", "maps.yaml: references: cam is trained on whole images, which data set 'mnist' has not"),
        ("dataset: manifest, path: a.csv, cut: whole", "references: cam reads instances at their place in a larger"),
    ],
)
def test_data_without_images_is_named(tmp_path, data, expected):
    with pytest.raises(UserError, match=expected):
        load_space(write(tmp_path, data))
