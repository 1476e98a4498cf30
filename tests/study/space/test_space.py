"""A space file is checked whole before anything runs, and its messages name file, key, value and what is allowed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from make_space import EXAMPLE, load_text

from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.options import Options, option
from d2l_study.study.space.files import find_space, list_spaces
from d2l_study.study.space.keys import flat_names
from d2l_study.study.space.load import load_space
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.space import study_name
from d2l_study.study.space.yaml_reader import parse_yaml


@pytest.fixture
def load(tmp_path: Path) -> Any:
    return partial(load_text, tmp_path)


def test_a_space_is_the_product_of_its_axes_in_each_arm(load: Any) -> None:
    space = load(EXAMPLE)
    points = [
        (method, s["data"].num_bags, s["teacher"].lambda_adv, s["teacher"].epsilon) for method, s in space.points()
    ]
    assert points == [
        ("none", 50, 0.0, 4.0), ("none", 100, 0.0, 4.0),
        ("vat", 50, 1.0, 1.0), ("vat", 50, 1.0, 2.0), ("vat", 100, 1.0, 1.0), ("vat", 100, 1.0, 2.0),
    ]  # fmt: skip
    assert space.count() == 6
    assert (space.name, space.replicates, space.keep_weights, space.metric) == ("mine", 3, "best", None)
    assert space.to_dict()["methods"]["vat"]["teacher"]["epsilon"] == [1.0, 2.0]


def test_the_arm_goes_before_the_common_section(load: Any) -> None:
    space = load(EXAMPLE.replace("steps: 100", "steps: 100, epsilon: 7"))
    assert {(m, s["teacher"].epsilon) for m, s in space.points()} == {("none", 7.0), ("vat", 1.0), ("vat", 2.0)}


def test_defaults_that_depend_on_other_keys_are_resolved(load: Any) -> None:
    assert {s["data"].val_bags for _, s in load(EXAMPLE).points()} == {25, 50}


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 1e-3), ("1E3", 1e3), ("2", 2), (".5", 0.5), ("1_000", 1000), ("010", 10)]
)
def test_numbers_are_read_as_people_write_them(text: str, number: float) -> None:
    assert parse_yaml(text, "here") == number


def test_a_number_with_an_exponent_is_a_number_in_a_space(load: Any) -> None:
    space = load(EXAMPLE.replace("steps: 100", "steps: 1e2, learning_rate: [1e-3, 5e-4]"))
    assert space.sections["teacher"] == {"steps": 100, "learning_rate": (1e-3, 5e-4)}
    assert isinstance(space.sections["teacher"]["steps"], int)


BAD = [  # what is changed in EXAMPLE, and what the message must hold
    ("description: a space for tests\n", "", ["description: missing"]),
    ("a space for tests", "5", ["description: 5 is not allowed", "a text"]),
    ("a space for tests", '"one\\ntwo"', ["description", "one line"]),
    ("steps: 100", "epsilonn: 1", ["teacher.epsilonn: unknown key", "'epsilon'"]),
    ("steps: 100", "steps: fast", ["teacher.steps: 'fast' is not allowed", "a whole number ≥ 1"]),
    ("steps: 100", "steps: 1.5", ["teacher.steps: 1.5 is not allowed"]),
    ("steps: 100", "steps: true", ["teacher.steps: true is not allowed"]),
    ("steps: 100", "lambda_adv: -1", ["teacher.lambda_adv: -1.0 is not allowed", "≥ 0"]),
    ("steps: 100", "lambda_adv: .nan", ["teacher.lambda_adv: nan is not allowed"]),
    ("steps: 100", "pooling: atention", ["teacher.pooling: 'atention'", "did you mean 'attention'"]),
    ("[50, 100]", "[50, 1]", ["data.num_bags (entry 2 of 2): 1 is not allowed", "≥ 2"]),
    ("[50, 100]", "1", ["data.num_bags: 1 is not allowed", "≥ 2"]),
    ("[50, 100]", "[]", ["data.num_bags: the axis is empty"]),
    ("[50, 100]", "[50, 50]", ["data.num_bags (entry 2 of 2): 50", "twice"]),
    ("[50, 100]", "[50, 50.0]", ["data.num_bags (entry 2 of 2): 50", "twice"]),
    ("[50, 100]", "{low: 50}", ["data.num_bags", "needs low and high"]),
    ("[50, 100]", "[[50]]", ["data.num_bags (entry 1 of 1): [50] is not allowed"]),
    ("mean_bag_size: 10", "mean_bag_size: 0.5", ["data.mean_bag_size: 0.5 is not allowed", "≥ 1"]),
    ("mean_bag_size: 10", "dataset: mnits", ["data.dataset: unknown data set 'mnits'", "'mnist'"]),
    ("mean_bag_size: 10", "dataset: []", ["data.dataset: the axis is empty"]),
    ("  none: {}", "  none: {data: {dataset: []}}", ["methods.none.data.dataset: the axis is empty"]),
    ("mean_bag_size: 10", "dataset: []}\nlabels: {none: Plain", ["data.dataset: the axis is empty"]),
    ("mean_bag_size: 10", "root: [a, b]", ["data.root", "cannot be an axis"]),
    ("mean_bag_size: 10", "dataset: manifest, path: [a.csv, b.csv]", ["data.path: a study reads one manifest"]),
    ("steps: 100", "steps: null", ["teacher.steps: null is not allowed"]),
    ("steps: 100", "dropout: [false]", ["teacher.dropout (entry 1 of 1): false is not allowed"]),
    ("teacher:", "\tteacher:", ["a tab; indent with spaces"]),
    ("steps: 100", "mixup: 1", ["teacher.mixup: 1 needs batch_bags ≥ 2"]),
    ("replicates: 3", "labelling: {none: Foo}", ["labelling: unknown key"]),
    ("mean_bag_size: 10", "prevalence: 0.01", ["data.prevalence: 0.01", "num_bags", "method none"]),
    ("replicates: 3", "replicates: 0", ["replicates: 0 is not allowed", "≥ 1"]),
    ("replicates: 3", "replicates: [1, 2]", ["replicates: [1, 2] is not allowed"]),
    ("replicates: 3", "search: {method: tpa}", ["search.method", "did you mean 'tpe'"]),
    ("replicates: 3", "epsilon: 2", ["epsilon: unknown key", "teacher.epsilon"]),
    ("replicates: 3", "replicate: 2", ["replicate: unknown key", "'replicates'"]),
    ("replicates: 3", "lamda: 2", ["lamda: unknown key", "did you mean 'teacher.lambda_adv'?"]),
    ("num_bags:", "lambda_adv: 1, num_bags:", ["data.lambda_adv: unknown key; section teacher has it"]),
    ("num_bags:", "numbag: 1, num_bags:", ["did you mean 'num_bags'? (known: dataset, num_bags, ", "verify"]),
    ("  none: {}", "  none: {lamda_adv: 1}", ["unknown section; did you mean 'methods.none.teacher.lambda_adv'?"]),
    ("  none: {}", "  none: {student: {steps: 1}}", ["methods.none.student: only arms of a space of students"]),
    ("replicates: 3", "base_seed: 1.5", ["base_seed: 1.5 is not allowed"]),
    ("replicates: 3", "keep_weights: some", ["keep_weights: 'some'", "all, best, none"]),
    ("replicates: 3", "metric: auc", ["metric: 'auc' is not allowed", "val_bag_auc"]),
    ("replicates: 3", "resources: {cpu: 2}", ["resources.cpu: unknown key", "'cpus'"]),
    ("replicates: 3", "resources: {device: cuda}", ["resources.device: 'cuda'", "gpus: 0"]),
    ("replicates: 3", "resources: {cpus: 0}", ["resources.cpus: 0"]),
    ("replicates: 3", "resources: {gpus: 1.5}", ["resources.gpus: 1.5", "whole number"]),
    ("replicates: 3", "resources: {gpus: 1, device: cpu}", ["resources.device: 'cpu'"]),
    ("replicates: 3", "resources: {max_concurrent: 0}", ["resources.max_concurrent: 0", "or null"]),
    ("replicates: 3", "replicates: 3\nteacher: {}", ["line 8", "'teacher'", "line 3"]),
    ("steps: 100", "steps: 100, steps: 200", ["line 3", "'steps'"]),
    ("replicates: 3", "replicates: [3", ["line", "not valid YAML"]),
    ("replicates: 3", "replicates: !!python/object/apply:os.getcwd []", ["line 7", "tags", "not supported"]),
    ("replicates: 3", "replicates: !own 3", ["line 7", "tags"]),
    ("replicates: 3", "replicates: " + "9" * 5000, ["line 7", "too long"]),
    ("replicates: 3", "replicates: " + "[" * 3000, ["nested too deeply"]),
    ("replicates: 3", "replicates: 3\n--- 1", ["not valid YAML"]),
    ("replicates: 3", "replicates: \x07", ["line 7", "U+0007"]),
    ("  none: {}", "  no: {}", ["line 5", "the name no is not text", "'no'"]),
    ("  none: {}", "  on: {}", ["line 5", "the name on is not text", "'on'"]),
    ("  none: {}", "  3: {}", ["line 5", "the name 3 is not text"]),
    ("  none: {}", "  ? [a]\n  : {}", ["line 5", "a key is not text"]),
    ("  none: {}", "  with VAT: {}", ["methods.with VAT", "letters, digits"]),
    ("  none: {}", "  ../up: {}", ["methods.../up", "letters, digits"]),
    ("  none: {}", "  none: plain", ["methods.none: expected keys with values", "'plain'"]),
    ("  none: {}", "  none: {lambda_adv: 1}", ["methods.none.lambda_adv", "methods.none.teacher.lambda_adv"]),
    ("  none: {}", "  none: {teachr: {}}", ["methods.none.teachr: unknown section", "'teacher'"]),
    ("  none: {}", "  none: {teacher: {stps: 1}}", ["methods.none.teacher.stps: unknown key", "'steps'"]),
    ("  none: {}", "  none: {data: {num_bags: 1}}", ["methods.none.data.num_bags: 1 is not allowed"]),
    ("teacher: {steps: 100}", "teacher: [steps]", ["teacher: expected keys with values", "a list"]),
]


@pytest.mark.parametrize(("old", "new", "held"), BAD, ids=[new[:30] or "removed" for _, new, _ in BAD])
def test_what_is_wrong_is_named(load: Any, old: str, new: str, held: list[str]) -> None:
    assert old in EXAMPLE
    with pytest.raises(UserError) as error:
        load(EXAMPLE.replace(old, new))
    message = str(error.value)
    assert "mine.yaml" in message
    assert all(part in message for part in held), message
    assert len(message) < 600


@pytest.mark.parametrize(
    ("content", "held"),
    [
        (b"", "empty"), (b"# only a comment\n", "empty"), (b"- a\n- b\n", "found a list"), (b"text", "a single value"),
        (b"description: x\n", "methods: missing"), (b"description: x\nmethods: {}\n", "methods: empty"),
        (b"description: x\nmethods:\n", "methods: empty"), (b"a: \xff\xfe\n", "line 1: not UTF-8"),
        (b"description: x\nmethods: {none: {}}\n#" + b"x" * 2_000_000, "bytes"),
    ],
)  # fmt: skip
def test_files_that_are_no_space(load: Any, content: bytes, held: str) -> None:
    with pytest.raises(UserError, match=r"mine\.yaml") as error:
        load(content)
    assert held in str(error.value)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(UserError, match=r"folder\.yaml: a folder"):
        load_space(tmp_path / "folder.yaml")
    with pytest.raises(UserError, match=r"none\.yaml: no such file"):
        load_space(tmp_path / "none.yaml")


def test_a_byte_order_mark_and_empty_sections_are_harmless(load: Any) -> None:
    space = load(b"\xef\xbb\xbfdescription: x\ndata:\nresources:\nmethods:\n  none:\n")
    assert space.count() == 1


def test_too_many_configurations_are_refused_before_they_are_made(load: Any) -> None:
    axis = list(range(1, 3001))
    with pytest.raises(UserError, match=r"54,000,000 configurations; at most 10,000"):
        load(EXAMPLE.replace("steps: 100", f"steps: {axis}, eval_every: {axis}"))


def test_a_long_value_is_shortened(load: Any) -> None:
    with pytest.raises(UserError) as error:
        load(EXAMPLE.replace("steps: 100", f"steps: {'x' * 5000}"))
    assert "teacher.steps: 'xxx" in str(error.value)
    assert len(str(error.value)) < 300


def test_the_study_name_follows_what_is_trained(load: Any) -> None:
    plain = study_name(load(EXAMPLE))
    assert plain == "mine"
    changed = study_name(load(EXAMPLE, "epsilon=3"))
    assert changed != plain
    assert changed.startswith("mine-")
    assert len(changed) == len("mine-") + 6
    assert changed == study_name(load(EXAMPLE, "teacher.epsilon=3.0"))
    assert changed != study_name(load(EXAMPLE, "epsilon=4"))
    both = study_name(load(EXAMPLE, "epsilon=3", "steps=5"))
    assert both == study_name(load(EXAMPLE, "steps=5", "epsilon=3"))
    assert both != changed
    for unchanged in ("replicates=9", "resources.cpus=2", "keep_weights=all", "data.root=/somewhere"):
        assert study_name(load(EXAMPLE, unchanged)) == plain
    assert study_name(load(EXAMPLE, replicates=9)) == plain
    assert study_name(load(EXAMPLE, "base_seed=9")) != plain


def test_a_study_name_is_a_folder_name(load: Any) -> None:
    assert study_name(load(EXAMPLE, name="my first: try.yaml")) == "my-first-try"


def test_spaces_are_found_by_name_and_by_file(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(EXAMPLE)
    monkeypatch.chdir(tmp_path)
    assert find_space("mine.yaml") == Path("mine.yaml")
    assert load_space("./mine.yaml").name == "mine"
    assert find_space("smoke").name == "smoke.yaml"
    (tmp_path / "smoke").mkdir()  # a folder of that name does not hide the space
    assert find_space("smoke").is_file()
    with pytest.raises(UserError, match=r"unknown space; did you mean 'vat_quick'.*; d2l spaces says what each asks"):
        find_space("vat_quik")
    with pytest.raises(UserError, match=r"space named 'smoke'"):
        find_space("smoke.yaml")


def test_every_shipped_space_loads_and_says_what_it_is_for() -> None:
    spaces = list_spaces()
    assert {"smoke", "vat_quick", "vat_grid"} <= {name for name, _, _ in spaces}
    for name, description, path in spaces:
        assert load_space(name).description == description
        assert path.is_file()


def test_the_slides_experiment_has_nine_arms_at_twenty_one_points() -> None:
    space = load_space("vat_grid")
    assert (space.count(), len(space.methods), space.replicates) == (189, 9, 5)
    weights = ("lambda_adv", "lambda_noise", "lambda_ent")
    by_arm = {m: tuple(getattr(s["teacher"], w) for w in weights) for m, s in space.points()}
    assert len(set(by_arm.values())) == 9
    for level in ("low", "high"):
        alone = [max(by_arm[f"{part}_{level}"]) for part in ("adv", "noise", "ent")]
        assert by_arm[f"all_{level}"] == tuple(alone)


def test_flat_names_tell_sections_apart() -> None:
    @dataclass(frozen=True)
    class StudentConfig(Options):
        steps: int = option(1, "steps")
        temperature: float = option(1.0, "T")

    names = flat_names({"data": MnistBags, "teacher": TeacherConfig, "student": StudentConfig})
    assert names["teacher", "steps"] == "steps"
    assert names["student", "steps"] == "student_steps"
    assert names["student", "temperature"] == "temperature"


def test_resources_tell_how_many_trials_fit() -> None:
    assert Resources().slots(cpus=2) == 2
    assert Resources(cpus=2).slots(cpus=3) == 1
    assert Resources(gpus=0.25).slots(cpus=16, gpus=1) == 4
    assert Resources(gpus=0.6).slots(cpus=16, gpus=2) == 2  # a part of a GPU lies on one
    assert Resources(gpus=0.4).slots(cpus=16, gpus=2) == 4
    assert Resources(gpus=0.3333).slots(cpus=16, gpus=2) == 6
    assert Resources(gpus=2).slots(cpus=16, gpus=5) == 2
    assert Resources(max_concurrent=1).slots(cpus=8) == 1
    assert Resources(gpus=1).slots(cpus=8) == 0
    assert Resources().identity() == {}


def test_reading_a_space_is_light() -> None:
    code = (
        "import sys; from d2l_study.study.plan import plan, cost; from d2l_study.study.space.load import load_space\n"
        "plan.make_plan(load_space('vat_grid'), 'x')\n"
        "print([m for m in ('torch', 'ray', 'mlflow', 'pandas', 'matplotlib', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
