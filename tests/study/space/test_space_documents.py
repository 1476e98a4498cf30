"""What a space says beside its keys: anchors and merge keys, labels, references, paths; and files that are no space."""

import os
import threading
from functools import partial
from pathlib import Path

import pytest
from make_space import load_text
from make_study import make_study

from d2l_study import cli
from d2l_study.errors import UserError
from d2l_study.study.commands import extend
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.plan.plan import make_plan
from d2l_study.study.space.load import load_space
from d2l_study.study.space.space import study_name
from d2l_study.study.space.yaml_reader import parse_yaml

STUDENTS = """\
description: students
student: {steps: 50}
teachers: {none: {}, vat: {teacher: {lambda_adv: 1}}}
methods: {plain: {}, noisy: {student: {dropout: 0.5}}}
references: [bag_label]
"""


@pytest.fixture
def load(tmp_path: Path):
    return partial(load_text, tmp_path)


# ---- anchors


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {s: 1}\nb: *x", {"a": {"s": 1}, "b": {"s": 1}}),
        ("a: &x {s: 1, t: 2}\nb: {<<: *x, t: 3}", {"a": {"s": 1, "t": 2}, "b": {"s": 1, "t": 3}}),
        ("a: &x {s: 1, t: 2}\nb: {t: 3, <<: *x}", {"a": {"s": 1, "t": 2}, "b": {"s": 1, "t": 3}}),
        ("a: {<<: [{s: 1}, {s: 2, t: 2}]}", {"a": {"s": 1, "t": 2}}),  # the first goes before
        ("x-base: &b {s: &n 5}\na: {<<: *b, t: *n}", {"a": {"s": 5, "t": 5}}),
        ('"<<": 3', {"<<": 3}),
    ],
)
def test_aliases_repeat_and_merge_keys_merge(text, value):
    assert parse_yaml(text, "here") == value


def test_arms_that_share_keys_by_an_anchor_are_what_they_would_be_written_out(load):
    head = "description: x\nteacher: {steps: 100}\n"
    short = "x-vat: &vat {lambda_adv: 1, epsilon: 2}\nmethods:\n  none: {}\n  vat: {teacher: *vat}\n" \
            "  far: {teacher: {<<: *vat, epsilon: 8}}\n"  # fmt: skip
    long = "methods:\n  none: {}\n  vat: {teacher: {lambda_adv: 1, epsilon: 2}}\n" \
           "  far: {teacher: {lambda_adv: 1, epsilon: 8}}\n"  # fmt: skip
    found, wanted = (configurations(load(head + text), "data") for text in (short, long))
    assert [(c.label, c.config_id) for c in found] == [(c.label, c.config_id) for c in wanted] and len(found) == 3


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "more than 20,000 values and keys, with what aliases repeat"),
        (f"a: [{'1, ' * 30_000}]", "line 1: more than 20,000 values"),
        ("a: &a [*a]", "line 1: not valid YAML: what begins here holds an alias .* of itself"),
        ("a: 1\nb: {<<: *a}", r"line 2: .* \*a stands for no value: no &a comes before it"),
        ("a: 1\nb: {<<: 3}", "line 2: << merges keys with values"),
        ("a: &x 1\nb: &x 2", r"line 2: .* given on line 1 already \(&x\)|line 2: .* this name was given on line 1"),
        ("a: {<<: {b: 1}, <<: {c: 1}}", "'<<' was given on line 1"),
        ("x-a: {b: 1}\na: 1", "line 1: x-a: .* nothing of it is"),
        ("a: {b: 1, b: 2}", "'b' was given"),
        ("a: 1\nb: 'open\nc: 2\n", "line 2: not valid YAML: the quote that opens here is not closed"),
        ('a: 1\nb: "open\nc: 2\n', "line 2: not valid YAML: the quote that opens here is not closed"),
        ("a: 1\nb: [1, 2\nc: 2\n", r"line 2: not valid YAML: the \[ that opens here is not closed, .* ':' on line 3"),
        ("a: {b: 1\nc: 2\n", "line 1: not valid YAML: the { that opens here is not closed, .* before ':' on line 2"),
        ("a: {b: 1\n", "line 1: not valid YAML: the { that opens here is not closed$"),
        ("a: {b: [1, 2}\n", r"line 1: not valid YAML: the \[ that opens here is not closed, .* missing before '}'$"),
        ("a:\n  b: 1\n c: 2\n", "line 3: .* does not fit the lines from line 1 on: keys of one level begin in one col"),
        ("a: 'x' y\n", "line 1: not valid YAML: text behind a quote or bracket that closes"),
        ("a: 1\nb\nc: 2\n", "line 2: not valid YAML: a key without ':' behind it"),
        ("a: b: c\n", "line 1: not valid YAML: a ':' where none can be; text that holds ': ' needs quotes"),
        ("a: @x\n", "line 1: not valid YAML: a value cannot begin with '@'; put it in quotes"),
        ("a: - 1\n", "line 1: not valid YAML: '- ' where no list can begin"),
        ('a: "x\\q"', "line 1: not valid YAML: found unknown escape character 'q'"),
        ("a: 1\n---\nb: 2", r"line 2: not valid YAML: a second document \(---\); a space is one"),
        ("a: &x &y 1", r"line 1: not valid YAML: an anchor \(&name\) too many"),
        ("a: ]", "line 1: not valid YAML: a value or a key is missing"),
        ("a: {b: 1, 'c' 'd'}", "is not closed, or a comma is missing before a value$"),
    ],
    ids=range(26),
)
def test_what_is_wrong_with_them_is_said_with_its_line(text, words):
    with pytest.raises(UserError, match=words) as error:
        parse_yaml(text, "here")
    assert len(str(error.value)) < 300


# ---- files


def test_what_is_no_file_is_answered_at_once(tmp_path):
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "long.yaml").write_text("#" * 3_000_000)
    said = []

    def ask():
        for path in ("/dev/zero", pipe, tmp_path / "folder.yaml", tmp_path / "long.yaml"):
            with pytest.raises(UserError) as error:
                load_space(path)
            said.append(str(error.value))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and len(said) == 4
    for message, words in zip(said, ("not a file", "not a file", "a folder", "more than 1,000,000 bytes"), strict=True):
        assert words in message


def test_more_arms_than_configurations_are_refused_before_they_are_paired(load):
    arms = ", ".join(f"a{i}: {{}}" for i in range(3000))
    with pytest.raises(UserError, match=r"9,000,000 arms; at most 10,000"):
        load(f"description: x\nstudent: {{}}\nteachers: {{{arms}}}\nmethods: {{{arms}}}\n")


def test_more_members_of_ensembles_than_can_be_planned_are_refused(load):
    steps = list(range(1, 1001))
    text = f"description: x\nstudent: {{teachers: 60, steps: {steps}}}\nteachers: {{a: {{}}}}\nmethods: {{b: {{}}}}\n"
    with pytest.raises(UserError, match=r"mine\.yaml: student\.teachers: the ensembles .* more than 50,000 members"):
        load(text)


# ---- references and the description


def test_references_can_be_set(load):
    space = load(STUDENTS, "references=[oracle, attention]")
    assert space.references == ("oracle", "attention") and study_name(space) != study_name(load(STUDENTS))
    assert load(STUDENTS, "references=[]").references == ()
    for words, message in (("references=[orakel]", "--set references: unknown reference 'orakel'"),
                           ("references=oracle", "--set references: expected a list")):  # fmt: skip
        with pytest.raises(UserError, match=message):
            load(STUDENTS, words)
    with pytest.raises(UserError, match="--set references: only a space of students"):
        load("description: x\nmethods: {none: {}}\n", "references=[oracle]")


def test_the_description_says_with_what_else_it_is_run(load):
    assert load(STUDENTS, "replicates=2").description == "students"
    space = load(STUDENTS, "data.num_bags=[20, 30]", "student.dropout=0.1")
    assert space.description == "students (here with data.num_bags=[20, 30], student.dropout=0.1)"
    assert load(STUDENTS, "data.num_bags=20", "description=mine").description == "mine"


# ---- labels


def test_labels_name_arms_references_and_keys_and_are_in_no_id(load):
    text = STUDENTS + "labels: {none: Attention MIL, noisy: 'Student, noised', none → plain: P, bag_label: SIL, " \
                      "epsilon: ε, student.dropout: dropout p}\n"  # fmt: skip
    space, plain = load(text), load(STUDENTS)
    assert space.labels == {"none": "Attention MIL", "noisy": "Student, noised", "none → plain": "P",
                            "bag_label": "SIL", "epsilon": "ε", "student.dropout": "dropout p"}  # fmt: skip
    assert space.to_dict()["labels"] == space.labels and study_name(space) == study_name(plain)
    ids = [[c.config_id for c in configurations(s, "x")] for s in (space, plain)]
    assert ids[0] == ids[1]
    assert load(text, "labels.none=Plain").labels["none"] == "Plain"


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("{nome: x}", "mine.yaml: labels.nome: 'nome' is neither an arm nor a key of the space; did you mean 'none'"),
        ("{none: 3}", "labels.none: 3 is not allowed; expected one line of text"),
        ("{none: ''}", "labels.none: '' is not allowed"),
        ('{none: "a\\nb"}', "labels.none"),
        ("{none: " + "x" * 61 + "}", "at most 60"),
        ("{none: same, vat: same}", "labels.vat: 'same' is the label of none already"),
        ("{none: vat}", "labels.none: 'vat' is what is shown for vat already"),
        ("{vat: bag_label}", "labels.vat: 'bag_label' is what is shown for bag_label already"),
        ("{none: x, vat → plain: x → plain}", "'x → plain' is what is shown for none → plain already"),
        ("{none: ε, teacher.epsilon: ε}", "labels.teacher.epsilon: 'ε' is the label of none already"),
        ("{dropout: d, weight_decay: d}", "labels.weight_decay: 'd' is the label of"),
        ("{epsilon: none}", "labels.epsilon: 'none' is what is shown for none already"),
        ("[none]", "labels: expected keys with values"),
    ],
)
def test_wrong_labels_are_named(load, labels, words):
    with pytest.raises(UserError) as error:
        load(STUDENTS + f"labels: {labels}\n")
    assert words in str(error.value)


def test_other_labels_are_not_another_study(load, tmp_path):
    space = load(STUDENTS)
    folder = make_study(tmp_path)
    entries = make_plan(space, "x").entries()
    folder.write(space.text, {"space": space.to_dict()}, [*entries, {**entries[0], "config_id": "of an extension"}])
    extend.check_same_study(folder, entries, load(STUDENTS + "labels: {none: Plain}\n"))
    extend.check_same_study(folder, entries, load(STUDENTS.replace("students", "a better description")))


# ---- paths


def test_paths_of_the_data_begin_at_the_space(load, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "description: x\ndata: {dataset: manifest, path: slides.csv}\nmethods: {none: {}}\n"
    beside, here = tmp_path / "spaces" / "slides.csv", tmp_path / "slides.csv"

    def path(*overrides, **kwargs):
        ((_, sections),) = load(text, *overrides, name="spaces/mine.yaml", **kwargs).points()
        return Path(sections["data"].path)

    assert path() == beside  # where it is looked for, if it is nowhere
    assert cli.main(["plan", "--space", "spaces/mine.yaml"]) == 2
    assert f"{beside}: no such file" in capsys.readouterr().err
    here.write_text("")
    assert path() == here  # as in spaces of before
    beside.write_text("")
    assert path() == beside
    assert path("data.path=slides.csv") == here  # said by a person who stands here
    assert path(beside=tmp_path / "elsewhere") == here
    assert load(text, name="spaces/mine.yaml").to_dict()["folder"] == str(tmp_path / "spaces")
