"""Start points of a search in a space: how their keys and values are read, and what is refused."""

from __future__ import annotations

import pytest
from make_space import load_text

from d2l_study import cli
from d2l_study.errors import UserError
from d2l_study.study.space.space import study_name

SPACE = """\
description: a search with start points
data: {num_bags: [50, 100]}
teacher: {steps: 100, learning_rate: {low: 1e-4, high: 1e-2, log: true}}
methods:
  none: {}
  vat:
    teacher:
      lambda_adv: {low: 0.1, high: 3}
      pooling: {choices: [attention, gated_attention]}
      batch_bags: {low: 1, high: 3}
search: {method: random, trials: 3, enqueue: POINTS}
"""
POINTS = "[{lambda_adv: 2, teacher.learning_rate: 1e-3}, {pooling: gated_attention}]"

STUDENTS = """\
description: students with start points
teacher: {steps: 100, learning_rate: {low: 1e-4, high: 1e-2}}
student: {steps: 100, learning_rate: {low: 1e-4, high: 1e-2}, temperature: {low: 1, high: 4}}
methods: {plain: {}}
search: {trials: 3, enqueue: [{temperature: 2, student.learning_rate: 1e-3}]}
"""


def load(folder, points=POINTS, text=SPACE):
    return load_text(folder, text.replace("POINTS", points))


def values_of(space, arm, key):
    """The value of a teacher's key at each point of an arm."""
    return [getattr(sections["teacher"], key) for method, sections in space.points() if method == arm]


def test_start_points_are_the_first_of_each_arm_at_each_point_of_its_axes(tmp_path):
    space, drawn = load(tmp_path), load_text(tmp_path, SPACE.replace(", enqueue: POINTS", ""))
    assert space.search.enqueue == (
        {"teacher.lambda_adv": 2.0, "teacher.learning_rate": 1e-3}, {"teacher.pooling": "gated_attention"},
    )  # fmt: skip
    for key, named in (("learning_rate", {0: 1e-3}), ("lambda_adv", {0: 2.0}), ("pooling", {1: "gated_attention"}),
                       ("batch_bags", {})):  # fmt: skip
        found, random = (values_of(one, "vat", key) for one in (space, drawn))
        assert found == [named.get(number % 3, value) for number, value in enumerate(random)] and len(found) == 6
    assert values_of(space, "none", "learning_rate")[::3] == [1e-3, 1e-3]
    assert values_of(space, "none", "lambda_adv") == [0.0] * 6  # an arm without VAT has none


def test_without_start_points_a_space_is_what_it_was(tmp_path):
    without = load_text(tmp_path, SPACE.replace(", enqueue: POINTS", ""))
    empty = load(tmp_path, "[]")
    assert without.to_dict() == empty.to_dict() and "enqueue" not in without.to_dict()["search"]
    assert load(tmp_path).to_dict()["search"]["enqueue"][1] == {"teacher.pooling": "gated_attention"}


def test_a_key_of_two_sections_is_named_with_its_own(tmp_path):
    space = load(tmp_path, text=STUDENTS)
    assert space.search.enqueue == ({"student.temperature": 2.0, "student.learning_rate": 1e-3},)
    with pytest.raises(UserError, match=r"learning_rate: several sections .* teacher\.learning_rate, student\.learn"):
        load(tmp_path, text=STUDENTS.replace("student.learning_rate: 1e-3", "learning_rate: 1e-3"))


def test_start_points_by_set_make_another_study(tmp_path):
    plain = SPACE.replace(", enqueue: POINTS", "")
    space = load_text(tmp_path, plain, "search.enqueue=[{lambda_adv: 2}]")
    assert space.search.enqueue == ({"teacher.lambda_adv": 2.0},)
    assert study_name(space) != study_name(load_text(tmp_path, plain))


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ("3", ["search.enqueue: 3 is", "a list, each a map"]),
        ("[3]", ["(entry 1 of 1): 3 is", "a map of keys and values"]),
        ("[{}]", ["(entry 1 of 1)", "names no key", "teacher.lambda_adv"]),
        ("[{lambda_ad: 2}]", ["lambda_ad: unknown key", "did you mean 'lambda_adv'"]),
        ("[{teacher.lambda_ad: 2}]", ["unknown key", "did you mean 'teacher.lambda_adv'"]),
        ("[{zzz: 2}]", ["zzz: unknown key (searched: teacher.learning_rate"]),
        ("[{epsilon: 2}]", ["epsilon: no arm searches this key", "teacher.lambda_adv"]),
        ("[{num_bags: 50}]", ["num_bags: no arm searches this key"]),
        ("[{lambda_adv: 2}, {lambda_adv: 4}]", ["(entry 2 of 2): teacher.lambda_adv: 4.0 is not", "[0.1, 3]"]),
        ("[{batch_bags: 2.5}]", ["teacher.batch_bags: 2.5 is not allowed", "whole number"]),
        ("[{lambda_adv: [1, 2]}]", ["teacher.lambda_adv: [1, 2] is not allowed", "a number"]),
        ("[{pooling: instance_max}]", ["'instance_max' is not allowed", "{attention, gated_attention}"]),
        ("[{pooling: attentio}]", ["did you mean 'attention'"]),
        ("[{lambda_adv: 2, teacher.lambda_adv: 1}]", ["teacher.lambda_adv: is there twice"]),
        ("[{lambda_adv: 2}, {teacher.lambda_adv: 2.0}]", ["(entry 2 of 2): the same point as entry 1"]),
        ("[{lambda_adv: 1}, {lambda_adv: 2}, {batch_bags: 1}, {batch_bags: 2}]", ["4 start points", "at most 3"]),
    ],
)
def test_mistakes_are_answered_in_a_line_before_any_work(points, words, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(SPACE.replace("POINTS", points))
    assert cli.main(["run", "--space", str(tmp_path / "s.yaml"), "--root", str(tmp_path / "runs")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and all(word in said for word in ["search.enqueue", *words]), said
    assert not (tmp_path / "runs" / "studies").exists()


def test_a_value_must_lie_in_the_distribution_of_each_arm(tmp_path):
    text = SPACE.replace("none: {}", "none: {teacher: {batch_bags: {low: 2, high: 5}}}")
    assert load(tmp_path, "[{batch_bags: 3}]", text).search.enqueue == ({"teacher.batch_bags": 3},)
    with pytest.raises(UserError, match=r"batch_bags: 1 is not allowed; .*\[2, 5\] of arm none"):
        load(tmp_path, "[{batch_bags: 1}]", text)


def test_a_grid_has_no_start_points(tmp_path):
    text = "description: g\ndata: {num_bags: [50, 100]}\nmethods: {a: {}}\nsearch: "
    with pytest.raises(UserError, match=r"search\.enqueue: start points are not allowed with method grid"):
        load_text(tmp_path, f"{text}{{method: grid, enqueue: [{{num_bags: 50}}]}}")


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_plan_shows_them(method, tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(SPACE.replace("POINTS", POINTS).replace("random", method))
    assert cli.main(["plan", "--space", str(tmp_path / "s.yaml"), "--root", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert "start point, trial 0 of each arm: teacher.lambda_adv=2, teacher.learning_rate=0.001\n" in out
    assert "start point, trial 1 of each arm: teacher.pooling=gated_attention\n" in out
    assert ("beginning with 2 start points and 1 random draw" in " ".join(out.split())) == (method == "tpe")
