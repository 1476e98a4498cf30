"""A space file is checked whole before anything runs, and its messages name file, key, value and what is allowed."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.options import Options, option
from d2l_study.study.space.files import find_space, list_spaces
from d2l_study.study.space.keys import StudyOptions, flat_names
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.space import Space, load_space, study_name
from d2l_study.study.space.yaml_reader import parse_yaml

GOOD = """\
description: a space for tests
data: {num_bags: [50, 100], mean_bag_size: 10}
teacher: {steps: 100}
methods:
  none: {}
  vat: {teacher: {lambda_adv: 1.0, epsilon: [1, 2]}}
replicates: 3
"""


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def write_and_load(text: str | bytes, *overrides: str, name: str = "mine.yaml", **kwargs: Any) -> Space:
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_space(path, overrides, **kwargs)

    return write_and_load


def test_a_space_is_the_product_of_its_axes_in_each_arm(load: Any) -> None:
    space = load(GOOD)
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
    space = load(GOOD.replace("steps: 100", "steps: 100, epsilon: 7"))
    assert {(m, s["teacher"].epsilon) for m, s in space.points()} == {("none", 7.0), ("vat", 1.0), ("vat", 2.0)}


def test_defaults_that_depend_on_other_keys_are_resolved(load: Any) -> None:
    assert {s["data"].val_bags for _, s in load(GOOD).points()} == {25, 50}


@pytest.mark.parametrize(
    ("text", "number"), [("1e-3", 1e-3), ("1E3", 1e3), ("2", 2), (".5", 0.5), ("1_000", 1000), ("010", 10)]
)
def test_numbers_are_read_as_people_write_them(text: str, number: float) -> None:
    assert parse_yaml(text, "here") == number


def test_a_number_with_an_exponent_is_a_number_in_a_space(load: Any) -> None:
    space = load(GOOD.replace("steps: 100", "steps: 1e2, learning_rate: [1e-3, 5e-4]"))
    assert space.sections["teacher"] == {"steps": 100, "learning_rate": (1e-3, 5e-4)}
    assert isinstance(space.sections["teacher"]["steps"], int)


BAD = [  # what is changed in GOOD, and what the message must hold
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
    assert old in GOOD
    with pytest.raises(UserError) as error:
        load(GOOD.replace(old, new))
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
        load(GOOD.replace("steps: 100", f"steps: {axis}, eval_every: {axis}"))


def test_a_long_value_is_shortened(load: Any) -> None:
    with pytest.raises(UserError) as error:
        load(GOOD.replace("steps: 100", f"steps: {'x' * 5000}"))
    assert "teacher.steps: 'xxx" in str(error.value)
    assert len(str(error.value)) < 300


# ---- --set


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
    assert load(GOOD, override).sections[section][key] == value


def test_set_reaches_arms_the_study_and_its_resources(load: Any) -> None:
    space = load(GOOD, "methods.vat.teacher.lambda_adv=3", "replicates=7", "resources.cpus=2", "threads=2")
    assert space.methods["vat"]["teacher"] == {"lambda_adv": 3.0, "epsilon": (1.0, 2.0)}
    assert (space.replicates, space.resources) == (7, Resources(cpus=2.0, threads=2))
    assert load(GOOD, "methods.vat.lambda_adv=3").methods == space.methods
    assert load(GOOD, "replicates=7", replicates=9).replicates == 9


def test_a_method_whose_name_holds_dots_can_be_set(load: Any) -> None:
    text = GOOD.replace("  vat:", "  vat.1: {teacher: {lambda_adv: 2}}\n  vat:")
    space = load(text, "methods.vat.1.teacher.lambda_adv=5")
    assert (space.methods["vat.1"]["teacher"]["lambda_adv"], space.methods["vat"]["teacher"]["lambda_adv"]) == (5, 1)


def test_a_common_value_acts_on_the_arms_that_do_not_set_the_key(load: Any) -> None:
    space = load(GOOD, "epsilon=9")
    assert {s["teacher"].epsilon for m, s in space.points() if m == "none"} == {9.0}
    assert {s["teacher"].epsilon for m, s in space.points() if m == "vat"} == {1.0, 2.0}


def test_a_common_value_without_effect_is_refused(load: Any) -> None:
    with pytest.raises(UserError, match=r"no effect.*methods\.vat\.teacher\.epsilon"):
        load(GOOD.replace("  none: {}\n", ""), "epsilon=9")


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
        ("n=50", ["--set n: unknown key", "SECTION.KEY"]),
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
        load(GOOD, override)
    assert all(part in str(error.value) for part in held), error.value
    assert len(str(error.value)) < 300


def test_the_same_key_cannot_be_set_twice(load: Any) -> None:
    with pytest.raises(UserError, match=r"--set teacher\.epsilon: given twice"):
        load(GOOD, "epsilon=1", "teacher.epsilon=2")


# ---- names


def test_the_study_name_follows_what_is_trained(load: Any) -> None:
    plain = study_name(load(GOOD))
    assert plain == "mine"
    changed = study_name(load(GOOD, "epsilon=3"))
    assert changed != plain
    assert changed.startswith("mine-")
    assert len(changed) == len("mine-") + 6
    assert changed == study_name(load(GOOD, "teacher.epsilon=3.0"))
    assert changed != study_name(load(GOOD, "epsilon=4"))
    both = study_name(load(GOOD, "epsilon=3", "steps=5"))
    assert both == study_name(load(GOOD, "steps=5", "epsilon=3"))
    assert both != changed
    for unchanged in ("replicates=9", "resources.cpus=2", "keep_weights=all", "data.root=/somewhere"):
        assert study_name(load(GOOD, unchanged)) == plain
    assert study_name(load(GOOD, replicates=9)) == plain
    assert study_name(load(GOOD, "base_seed=9")) != plain


def test_a_study_name_is_a_folder_name(load: Any) -> None:
    assert study_name(load(GOOD, name="my first: try.yaml")) == "my-first-try"


def test_spaces_are_found_by_name_and_by_file(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(GOOD)
    monkeypatch.chdir(tmp_path)
    assert find_space("mine.yaml") == Path("mine.yaml")
    assert load_space("./mine.yaml").name == "mine"
    assert find_space("smoke").name == "smoke.yaml"
    (tmp_path / "smoke").mkdir()  # a folder of that name does not hide the space
    assert find_space("smoke").is_file()
    with pytest.raises(UserError, match=r"unknown space; did you mean 'vat_quick'"):
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
    assert Resources(max_concurrent=1).slots(cpus=8) == 1
    assert Resources(gpus=1).slots(cpus=8) == 0
    assert Resources().identity() == {}


def test_reading_a_space_is_light() -> None:
    code = (
        "import sys; from d2l_study.study.plan import plan, cost; from d2l_study.study.space.space import load_space\n"
        "plan.make_plan(load_space('vat_grid'), 'x')\n"
        "print([m for m in ('torch', 'ray', 'mlflow', 'pandas', 'matplotlib', 'optuna') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- malformed spaces, generated

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
numbers = ("steps", "epsilon", "lambda_adv", "batch_bags", "learning_rate", "eval_every")
wrong = st.one_of(
    st.text(alphabet="xyz !{}[]:#&*'\"\\\n", min_size=1, max_size=30), st.just(math.nan), st.just(-math.inf),
    st.booleans(), st.integers(max_value=-1), st.dictionaries(words, st.integers(), max_size=2), st.just([]),
    st.just([5, 5]), st.lists(st.lists(st.integers(), max_size=2), min_size=1, max_size=2), st.none(),
)  # fmt: skip
broken = st.sampled_from(
    ["[", "{", '"', "'", "a: b: c", "\t- x", "*x", "!!python/name:os.system x", "- 1", "? ", "%", "@x", "`", "a\nb",
     "| x", "--- \n...\n--- 1", "description: again", "<<: {a: 1}", "\x00", "!!set {a}", "!!int x", "!!float 1..2",
     "!!bool 7", '"\\U0011FFFF": 1', '"\\ud800": 1', "no: 1", "null: 1", "2020-01-01: 1",
     "&a [*a]: 1", "[" * 2000, "{a: " * 2000]
)  # fmt: skip


@st.composite
def malformed(draw: Any) -> bytes:
    space: dict[str, Any] = yaml.safe_load(GOOD)
    kind = draw(st.sampled_from(["key", "value", "axis", "section", "method", "top", "missing", "text", "bytes"]))
    home = draw(st.sampled_from([space["teacher"], space["methods"]["vat"]["teacher"]]))
    if kind == "key":
        place = draw(st.sampled_from([space, space["data"], home, space["methods"]["none"]]))
        known = {
            *space,
            *MnistBags.keys(),
            *TeacherConfig.keys(),
            "base_seed",
            "keep_weights",
            "metric",
            "resources",
        }
        place[draw(words.filter(lambda word: word not in known))] = draw(st.integers() | words)
    elif kind == "value":
        home[draw(st.sampled_from(numbers))] = draw(wrong)
    elif kind == "axis":
        space["data"]["num_bags"] = [*draw(st.lists(st.integers(2, 99), max_size=3)), draw(st.integers(max_value=1))]
    elif kind == "section":
        space[draw(st.sampled_from(["data", "teacher", "methods", "resources"]))] = draw(
            st.integers() | words | st.lists(st.integers(), min_size=1, max_size=3)
        )
    elif kind == "method":
        name = draw(words.filter(lambda word: not all(c.isascii() and (c.isalnum() or c in "_.+-") for c in word)))
        space["methods"][name] = {}
    elif kind == "missing":
        del space[draw(st.sampled_from(["description", "methods"]))]
    text = yaml.safe_dump(space, allow_unicode=draw(st.booleans()))
    if kind == "top":
        text = yaml.safe_dump(draw(st.lists(words, max_size=3) | words | st.integers()))
    if kind == "text":
        lines = text.splitlines()
        lines.insert(draw(st.integers(0, len(lines))), draw(broken))
        text = "\n".join(lines) + "\n" + draw(broken)
    data = text.encode("utf-8", "surrogatepass")
    return data + draw(st.sampled_from([b"\xff", b"\xc3(", b"\xed\xa0\x80"])) if kind == "bytes" else data


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)
@given(data=malformed())
def test_generated_malformed_spaces_are_refused_in_a_few_words(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "generated.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        load_space(path)
    message = str(error.value)
    assert "generated.yaml" in message
    assert len(message) < 600
    assert message.isprintable() or "\n" not in message


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(key=words | st.sampled_from(["teacher.", "methods.vat.", "methods..", ".", "data.dataset"]), value=words)
def test_generated_overrides_are_accepted_or_refused(tmp_path_factory: Any, key: str, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "overridden.yaml"
    path.write_text(GOOD)
    try:
        space = load_space(path, [f"{key}={value}"])
    except UserError as error:
        assert "--set" in str(error) and len(str(error)) < 600
    else:  # one of few that make sense: a description, say
        assert space.overrides == (f"{key}={value}",) and hasattr(StudyOptions, key)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("teacher.batch_bags=1", "--set teacher.batch_bags: teacher.mixup: 1 needs batch_bags ≥ 2"),
        ("teacher.initial_weights=he", "--set teacher.initial_weights: he is for lenet"),
        ("teacher.extractor=lenet", "--set teacher.extractor: teacher.stochastic_depth: 0.1 needs residual blocks"),
    ],
)  # fmt: skip
def test_what_a_set_makes_wrong_is_said_of_the_set(load: Any, override: str, said: str) -> None:
    text = GOOD.replace("steps: 100", "extractor: resnet, stochastic_depth: 0.1, mixup: 1, batch_bags: 2")
    load(text)
    with pytest.raises(UserError) as error:
        load(text, override)
    assert str(error.value).startswith(said)


def test_nothing_far_is_suggested(load: Any) -> None:
    for asked in ("labels={none: Foo}", "foo=3"):
        with pytest.raises(UserError) as error:
            load(GOOD, asked)
        assert "did you mean" not in str(error.value)
