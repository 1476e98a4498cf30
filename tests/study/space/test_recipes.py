"""`recipe: robust` gives values to keys that the space leaves out, and overrides none."""

import pytest

from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.space.load import load_space

SPACE = """
description: one arm
{recipe}
data: {{num_bags: 6, mean_bag_size: 3{data}}}
teacher: {{lambda_noise: 0.1{teacher}}}
methods:
  one: {{teacher: {{{arm}}}}}
"""


def sections_of(folder, recipe="recipe: robust", data="", teacher="", arm="", overrides=()):
    path = folder / "tried.yaml"
    path.write_text(SPACE.format(recipe=recipe, data=data, teacher=teacher, arm=arm))
    ((_, sections),) = load_space(path, overrides).points()
    return sections


def test_without_it_the_keys_have_their_defaults(tmp_path):
    for recipe in ("", "recipe: defaults"):
        assert sections_of(tmp_path, recipe)["teacher"] == TeacherConfig(lambda_noise=0.1)


def test_robust_lets_training_converge_and_takes_no_validation_label(tmp_path):
    teacher = sections_of(tmp_path)["teacher"]
    assert (teacher.initial_weights, teacher.bag_order, teacher.augment) == ("he", "alternating", "affine")
    assert (teacher.decay, teacher.select, teacher.lambda_noise) == ("cosine", "last", 0.1)
    assert teacher.batch_bags == 4 and teacher.warmup_steps > 0 and teacher.weight_average > 0
    assert teacher.steps is None and teacher.epochs and teacher.min_steps > 1


@pytest.mark.parametrize("place", ["section", "arm", "--set"])
@pytest.mark.parametrize("length", ["steps", "epochs"])
def test_a_length_that_is_given_takes_the_place_of_the_recipes(tmp_path, place, length):
    given = {"section": {"teacher": f", {length}: 7"}, "arm": {"arm": f"{length}: 7"},
             "--set": {"overrides": [f"teacher.{length}=7"]}}[place]  # fmt: skip
    teacher = sections_of(tmp_path, **given)["teacher"]
    assert getattr(teacher, length) == 7 and teacher.min_steps == 1
    assert teacher.batch_bags == 4


def test_what_is_given_stays(tmp_path):
    teacher = sections_of(tmp_path, teacher=", augment: none", arm="select: auc, initial_weights: uniform")["teacher"]
    assert (teacher.augment, teacher.select, teacher.initial_weights) == ("none", "auc", "uniform")


def test_other_networks_and_data_get_what_is_meant_for_them(tmp_path):
    assert sections_of(tmp_path, arm="extractor: resnet")["teacher"].initial_weights == "uniform"
    (tmp_path / "musk.yaml").write_text(
        "description: vectors\nrecipe: robust\ndata: {dataset: features, path: musk1}\nmethods: {one: {}}\n"
    )
    ((_, sections),) = load_space(tmp_path / "musk.yaml").points()
    teacher = sections["teacher"]
    assert (teacher.extractor, teacher.initial_weights, teacher.augment) == ("mlp", "uniform", "none")
    assert (teacher.select, teacher.weight_average) == ("last", 0.99)


def test_students_and_their_reference_rows_follow_it(tmp_path):
    path = tmp_path / "students.yaml"
    path.write_text(
        "description: students\nrecipe: robust\ndata: {num_bags: 6, mean_bag_size: 3}\nteacher: {steps: 20}\n"
        "student: {steps: 10}\nmethods: {one: {}, soft: {student: {alpha: 0}}}\n"
        "references: [matched, oracle, no_teacher]\n"
    )
    found = {c.label: c.sections for c in configurations(load_space(path), "")}
    for label in ("teacher → one", "oracle", "no_teacher"):
        student = found[label]["student"]
        assert (student.select, student.decay, student.weight_average) == ("last", "cosine", 0.99), label
    assert found["matched of teacher"]["teacher"].select == "last"


def test_as_an_override_it_names_another_study():
    space = load_space("vat_quick", ["recipe=robust"])
    assert space.scientific_overrides == {"recipe": "robust"}
    with pytest.raises(UserError, match=r"--set recipe.*robost.*robust"):
        load_space("vat_quick", ["recipe=robost"])


def test_the_same_values_written_out_are_the_same_configuration(tmp_path):
    def id_of(recipe, teacher=""):
        (tmp_path / "tried.yaml").write_text(SPACE.format(recipe=recipe, data="", teacher=teacher, arm=""))
        (one,) = configurations(load_space(tmp_path / "tried.yaml"), "")
        return one.config_id

    made = sections_of(tmp_path)["teacher"]
    keys = ("initial_weights", "bag_order", "augment", "decay", "select", "batch_bags", "warmup_steps", "epochs",
            "weight_average", "min_steps", "learning_rate", "weight_decay")  # fmt: skip
    written = "".join(f", {key}: {getattr(made, key)}" for key in keys)
    assert id_of("recipe: robust") == id_of("", written) != id_of("")
