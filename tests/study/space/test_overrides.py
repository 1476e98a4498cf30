"""`--set key=value` reaches every key of a space by its name, and says what is wrong with the one it was given."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from make_space import EXAMPLE, load_text

from d2l_study.errors import UserError
from d2l_study.study.space.load import load_space
from d2l_study.study.space.resources import Resources


@pytest.fixture
def load(tmp_path: Path) -> Any:
    return partial(load_text, tmp_path)


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("teacher.epsilon=3", "teacher", "epsilon", 3.0),
        ("epsilon=3", "teacher", "epsilon", 3.0),
        ("data.num_bags=[10, 20]", "data", "num_bags", (10, 20)),
        ("num_bags=200", "data", "num_bags", 200),
        ("learning_rate=1e-3", "teacher", "learning_rate", 1e-3),
        (" steps = 7 ", "teacher", "steps", 7),
    ],
)
def test_set_changes_a_common_key(load: Any, override: str, section: str, key: str, value: Any) -> None:
    assert load(EXAMPLE, override).sections[section][key] == value


def test_set_reaches_arms_the_study_and_its_resources(load: Any) -> None:
    space = load(EXAMPLE, "methods.vat.teacher.lambda_adv=3", "replicates=7", "resources.cpus=2", "threads=2")
    assert space.methods["vat"]["teacher"] == {"lambda_adv": 3.0, "epsilon": (1.0, 2.0)}
    assert (space.replicates, space.resources) == (7, Resources(cpus=2.0, threads=2))
    assert load(EXAMPLE, "methods.vat.lambda_adv=3").methods == space.methods
    assert load(EXAMPLE, "replicates=7", replicates=9).replicates == 9


def test_a_method_whose_name_holds_dots_can_be_set(load: Any) -> None:
    text = EXAMPLE.replace("  vat:", "  vat.1: {teacher: {lambda_adv: 2}}\n  vat:")
    space = load(text, "methods.vat.1.teacher.lambda_adv=5")
    assert (space.methods["vat.1"]["teacher"]["lambda_adv"], space.methods["vat"]["teacher"]["lambda_adv"]) == (5, 1)


def test_a_common_value_acts_on_the_arms_that_do_not_set_the_key(load: Any) -> None:
    space = load(EXAMPLE, "epsilon=9")
    assert {s["teacher"].epsilon for m, s in space.points() if m == "none"} == {9.0}
    assert {s["teacher"].epsilon for m, s in space.points() if m == "vat"} == {1.0, 2.0}


def test_a_common_value_without_effect_is_refused(load: Any) -> None:
    with pytest.raises(UserError, match=r"no effect.*methods\.vat\.teacher\.epsilon"):
        load(EXAMPLE.replace("  none: {}\n", ""), "epsilon=9")


@pytest.mark.parametrize(
    ("override", "held"),
    [
        ("epsilon", ["key=value"]),
        ("=3", ["key=value"]),
        ("teacher.epsilon=-1", ["--set teacher.epsilon: -1.0 is not allowed", "> 0"]),
        ("epsilon=big", ["--set teacher.epsilon: 'big' is not allowed"]),
        ("num_bags=[50, 1]", ["--set data.num_bags (entry 2 of 2): 1"]),
        ("num_bags=[]", ["--set data.num_bags", "empty"]),
        ("num_bags=[50", ["--set data.num_bags", "not valid YAML"]),
        ("epsilonn=2", ["--set epsilonn: unknown key", "'teacher.epsilon'"]),
        ("teacher.epsilonn=2", ["--set teacher.epsilonn: unknown key", "'epsilon'"]),
        ("n=50", ["--set n: unknown key", "SECTION.KEY", "all keys: d2l keys"]),
        ("teacher.lamda=2", ["--set teacher.lamda: unknown key; did you mean 'lambda_adv'?", "d2l keys teacher"]),
        ("lamda=2", ["--set lamda: unknown key; did you mean 'teacher.lambda_adv'?"]),
        ("methods.vta.teacher.epsilon=2", ["did you mean 'vat'?"]),
        ("student.steps=2", ["--set student.steps: unknown key"]),
        ("methods.vta.teacher.epsilon=2", ["unknown method", "none, vat"]),
        ("methods.vat.epsilonn=2", ["--set methods.vat.epsilonn: unknown key"]),
        ("methods.vat=2", ["methods"]),
        ("teacher={steps: 3}", ["--set teacher: this is a section"]),
        ("methods={}", ["--set methods: this is a section"]),
        ("replicates=0", ["--set replicates: 0 is not allowed"]),
        ("resources.cpus=many", ["--set resources.cpus: 'many'"]),
        ("device=cuda", ["--set resources.device: 'cuda' is not allowed with gpus: 0"]),
        ("prevalence=0.01", ["--set data.prevalence: 0.01 makes 0 of 50 bags (num_bags) positive", "method none"]),
        ("dataset=mnits", ["--set data.dataset: unknown data set 'mnits'"]),
    ],
)
def test_a_wrong_set_is_named(load: Any, override: str, held: list[str]) -> None:
    with pytest.raises(UserError) as error:
        load(EXAMPLE, override)
    assert all(part in str(error.value) for part in held), error.value
    assert len(str(error.value)) < 300


def test_the_same_key_cannot_be_set_twice(load: Any) -> None:
    with pytest.raises(UserError, match=r"--set teacher\.epsilon: given twice"):
        load(EXAMPLE, "epsilon=1", "teacher.epsilon=2")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("teacher.batch_bags=1", "--set teacher.batch_bags: teacher.mixup: 1 needs batch_bags ≥ 2"),
        ("teacher.initial_weights=he", "--set teacher.initial_weights: he is for lenet"),
        ("teacher.extractor=lenet", "--set teacher.extractor: teacher.stochastic_depth: 0.1 needs residual blocks"),
    ],
)  # fmt: skip
def test_what_a_set_makes_wrong_is_said_of_the_set(load: Any, override: str, said: str) -> None:
    text = EXAMPLE.replace("steps: 100", "extractor: resnet, stochastic_depth: 0.1, mixup: 1, batch_bags: 2")
    load(text)
    with pytest.raises(UserError) as error:
        load(text, override)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("more", [(), ("labels.none=Plain",), ("num_bags=20",)])
def test_an_axis_of_no_data_sets_is_said_of_its_set(load: Any, more: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        load(EXAMPLE, "data.dataset=[]", *more)
    assert str(error.value) == "--set data.dataset: the axis is empty; give at least one value"


def test_nothing_far_is_suggested(load: Any) -> None:
    for asked in ("labels={none: Foo}", "foo=3"):
        with pytest.raises(UserError) as error:
            load(EXAMPLE, asked)
        assert "did you mean" not in str(error.value)


def test_data_are_looked_for_beside_the_space_then_here_then_in_the_data_folder(tmp_path, monkeypatch):
    """A space of the package names `colon_features`, which lies where `D2L_DATA` says."""
    file = tmp_path / "spaces" / "own.yaml"
    file.parent.mkdir()
    file.write_text("description: any\ndata: {dataset: features, path: cohort}\nmethods: {none: {}}\nreplicates: 3\n")
    here, data = tmp_path / "here", tmp_path / "data"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("D2L_DATA", str(data))

    def found():
        return load_space(file).sections["data"]["path"]

    assert found() == str(file.parent / "cohort")  # nowhere: it is missing there
    (data / "cohort").mkdir(parents=True)
    assert found() == str(data / "cohort")
    (here / "cohort").mkdir()
    assert found() == str(here / "cohort")
    (file.parent / "cohort").mkdir()
    assert found() == str(file.parent / "cohort")


def test_words_that_stand_for_a_path_stay(tmp_path):
    file = tmp_path / "own.yaml"
    text = "description: any\ndata: {dataset: features, path: musk1, splits: made}\nmethods: {none: {}}\n"
    file.write_text(text)
    data = load_space(file).sections["data"]
    assert (data["path"], data["splits"]) == ("musk1", "made")


@pytest.mark.parametrize(("override", "hint"), [("Num_Bags=5", "'data.num_bags'"), ("data.Num_Bags=5", "'num_bags'")])
def test_a_key_that_differs_by_case_alone_is_said_to(load: Any, override: str, hint: str) -> None:
    with pytest.raises(UserError, match=f"unknown key; case matters: did you mean {hint}"):
        load(EXAMPLE, override)
