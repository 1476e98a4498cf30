"""Configuration sections: bounds, types and messages in the user's words."""

import dataclasses
from dataclasses import dataclass

import pytest

from d2l_study.data import MnistBags
from d2l_study.errors import UserError, listed, nearest, nearest_name, nearest_option
from d2l_study.learning import TeacherConfig
from d2l_study.options import Options, field_of, option
from d2l_study.study.space.resources import Resources


@dataclass(frozen=True)
class Section(Options):
    rate: float = option(0.5, "a share", least=0.0, below=1.0)
    steps: int = option(10, "a count", least=1, most=100)
    kind: str = option("plain", "a kind", choices=("plain", "gated"))
    flag: bool = option(False, "a switch")
    limit: int | None = option(None, "a bound", above=0)
    added: float = option(0.0, "came after there were results", neutral=0.0)
    folder: str | None = option(None, "a place", scientific=False)


@pytest.mark.parametrize(
    ("key", "given", "kept"),
    [
        ("rate", 0, 0.0), ("rate", "1e-3", 1e-3), ("rate", "0.25", 0.25), ("steps", 3.0, 3), ("steps", 1, 1),
        ("steps", 100, 100), ("limit", None, None), ("limit", 1, 1), ("flag", True, True), ("kind", "gated", "gated"),
    ],
)  # fmt: skip
def test_values_are_kept_in_their_own_type(key, given, kept):
    value = getattr(Section(**{key: given}), key)
    assert value == kept and type(value) is type(kept)


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("rate", -0.1, "a number ≥ 0 and < 1"), ("rate", 1.0, "a number ≥ 0 and < 1"), ("rate", True, "a number"),
        ("rate", "fast", "a number"), ("rate", None, "a number"), ("rate", float("nan"), "a number"),
        ("rate", "inf", "a number"), ("rate", [0.1], "a number"),
        ("steps", 0, "a whole number ≥ 1 and ≤ 100"), ("steps", 101, "a whole number ≥ 1 and ≤ 100"),
        ("steps", 2.5, "a whole number"), ("steps", True, "a whole number"), ("steps", "3", "a whole number"),
        ("kind", "square", "one of plain, gated"), ("kind", 3, "one of plain, gated"),
        ("flag", 1, "true or false"), ("flag", "yes", "true or false"),
        ("limit", 0, "a whole number > 0 or null"), ("folder", 3, "a text or null"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_what_is_allowed(key, given, expected):
    with pytest.raises(UserError) as error:
        Section(**{key: given})
    message = str(error.value)
    assert message.startswith(f"{key}: ") and "is not allowed" in message and f"expected {expected}" in message


def test_a_misspelt_choice_and_a_misspelt_key_get_the_nearest_name():
    with pytest.raises(UserError, match="did you mean 'gated'"):
        Section(kind="gatd")
    with pytest.raises(UserError, match=r"study\.yaml: teacher\.stepz: unknown key; did you mean 'steps'.*known: rate"):
        Section.from_mapping({"stepz": 3}, where="study.yaml: teacher")


def test_a_wrong_value_in_a_file_is_named_with_the_place():
    with pytest.raises(UserError, match=r"^study\.yaml: teacher\.steps: 0 is not allowed"):
        Section.from_mapping({"steps": 0}, where="study.yaml: teacher")


def test_what_comes_out_goes_in_again():
    section = Section(rate=0.25, limit=3, folder="there")
    assert Section.from_mapping(section.to_dict()) == section
    assert Section.keys() == tuple(section.to_dict())


def test_identity_leaves_out_neutral_values_and_places():
    assert "added" not in Section().identity() and "folder" not in Section(folder="there").identity()
    assert Section(added=0.1).identity()["added"] == 0.1
    assert Section(folder="here").identity() == Section(folder="there").identity()
    assert Section(rate=0.1).identity() != Section(rate=0.2).identity()
    assert Section(steps=3.0).identity() == Section(steps=3).identity()


def test_sections_are_frozen_and_checked_again_when_replaced():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Section().steps = 4
    with pytest.raises(UserError, match="steps"):
        dataclasses.replace(Section(), steps=0)


@pytest.mark.parametrize("section", [MnistBags, TeacherConfig])
def test_every_key_of_the_sections_is_documented_and_its_default_is_allowed(section):
    defaults = section()
    for key in defaults.to_dict():
        hint, meta = field_of(section, key)
        assert hint is not None and len(meta["doc"]) > 5, key
    assert section.from_mapping(defaults.to_dict()) == defaults


def test_another_word_for_a_choice_is_translated():
    for key, word, meant in (("device", "gpu", "cuda"), ("device", "GPU", "cuda"), ("precision", "fp32", "float32")):
        with pytest.raises(UserError, match=f"{key}: '{word}' is not allowed.*did you mean '{meant}'"):
            Resources(**{key: word})


def test_nearest_and_listed():
    assert nearest("atention", ("attention", "instance_max")) == "; did you mean 'attention'?"
    assert nearest("zzz", ("attention",)) == ""


@pytest.mark.parametrize(
    ("name", "meant"),
    [("lamda", "lambda_adv"), ("lambda", "lambda_adv"), ("eps", "epsilon"), ("step", "steps"),
     ("weight", "weight_decay"),
     ("batch", "batch_bags"), ("bath_bags", "batch_bags"), ("LAMBDA_NOISE", "lambda_noise"), ("rate", None)],
)  # fmt: skip
def test_the_beginning_of_a_name_finds_it(name, meant):
    keys = ("steps", "lambda_ent_2", "epsilon", "weight_decay", "batch_bags", "lambda_adv", "lambda_noise")
    assert nearest_name(name, keys) == meant


def test_of_names_that_are_as_near_the_first_is_found():
    assert nearest_name("lamda", ("lambda_ab", "lambda_cd")) == "lambda_ab"
    assert listed("abc") == "a, b, c"
    assert listed(range(30), most=2) == "0, 1, … (30 in all)"


def test_a_name_that_differs_by_case_alone_is_said_to():
    """Else 'did you mean' shows a word that looks like the one that was typed."""
    assert nearest("Diagnosis", ("diagnostic", "diagnosis")) == "; case matters: did you mean 'diagnosis'?"
    assert nearest("bag_auc", ("BAG_AUC", "bag_aucs")) == "; case matters: did you mean 'BAG_AUC'?"
    assert nearest("Diagnoses", ("Diagnosis",)) == "; did you mean 'Diagnosis'?"


def test_options_of_a_command_are_not_alike_for_their_dashes():
    known = ("--help", "--root", "--format")
    assert nearest_option("--where", known) == ""
    assert nearest_option("--fromat", known) == "; did you mean '--format'?"
    assert nearest_option("--Root", known) == "; case matters: did you mean '--root'?"
