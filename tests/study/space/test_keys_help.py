"""The page of keys tells what a space may hold, and what it tells is what a space accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from d2l_study.cli import main
from d2l_study.data import DATASETS
from d2l_study.errors import UserError
from d2l_study.options import field_of
from d2l_study.study.space.keys_help import PLACES, show_keys
from d2l_study.study.space.load import load_space
from d2l_study.study.space.recipes import recipe_values


def entries(page: str) -> dict[str, object]:
    """Key -> default, read back from a page of one section as YAML."""
    found: dict[str, object] = {}
    for line in re.findall(r"^  (?! )(.*)$", page, re.MULTILINE):
        found |= yaml.safe_load(line)
    return found


@pytest.mark.parametrize("section", [*PLACES, *DATASETS])
def test_every_key_is_there_and_its_default_is_accepted_as_it_is_written(section: str) -> None:
    places = PLACES.get(section) or {"": DATASETS[section]}
    cls = next(iter(places.values()))
    page = show_keys([section]).split("\n\n")[0]
    told = entries(page)
    assert tuple(told) == cls.keys()
    assert cls.from_mapping(told) == cls()
    flat = " ".join(page.split())
    for key in cls.keys():  # noqa: SIM118 (a class method)
        assert " ".join(field_of(cls, key)[1]["doc"].split()) in flat


def test_one_key_and_several_sections() -> None:
    page = show_keys(["teacher.epsilon", "resources"])
    assert page.startswith("section teacher\n  epsilon: 4\n") and "(a number > 0)" in page
    assert "learning_rate" not in page and "\n  retries: 1\n" in page


def test_without_a_word_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys"]) == 0
    page = capsys.readouterr().out
    for words in ("section teacher\n", "dataset: manifest\n", "section search\n", "  replicates: 5\n", "references"):
        assert words in page


def test_what_is_not_known_is_answered_with_what_is() -> None:
    for wrong, said in {
        "teacher.epsilonn": "'teacher.epsilonn': unknown key; did you mean 'epsilon'",
        "teachr": "'teachr': unknown key; did you mean 'teacher'",
        "teachr.epsilon": "'teachr': unknown section; did you mean 'teacher'",
        "teacher.": "'teacher.': unknown key (known: extractor",
        "": "'': unknown key (known: description",
    }.items():
        with pytest.raises(UserError, match=re.escape(said)):
            show_keys([wrong])


def test_a_bare_key_is_found_wherever_it_is() -> None:
    page = show_keys(["steps", "replicates", "methods"])
    assert "section teacher\n  steps: 2000\n" in page and "of a space of students\n  steps: 600\n" in page
    assert "the top level of a space\n  replicates: 5\n" in page and "the top level of a space\n  methods\n" in page
    assert "learning_rate" not in page


def test_a_message_that_cannot_hold_all_keys_says_who_can(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--space", "smoke", "--set", "teacher.zzz=1"]) == 2
    said = capsys.readouterr().err
    assert "teacher.zzz: unknown key (" in said and " keys; all of them: python -m d2l_study keys teacher)" in said


def test_a_column_of_tables_finds_the_key_of_its_section() -> None:
    assert show_keys(["student_augment"]) == show_keys(["student.augment"])
    assert "section teacher" not in show_keys(["student_augment"])
    with pytest.raises(UserError, match="'student_agument': unknown key; did you mean 'augment'"):
        show_keys(["student_agument"])


@pytest.mark.parametrize(("columns", "widest"), [(60, 60), (200, 110)])
def test_lines_fit_the_screen(columns: int, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = [line for line in show_keys([]).splitlines() if line.startswith("      ")]
    assert widest - 12 < max(map(len, lines)) <= widest


def test_bounds_of_whole_numbers_have_all_their_digits() -> None:
    assert "≤ 9007199254740992)" in " ".join(show_keys(["study"]).split())


def test_the_values_of_the_recipe_are_told() -> None:
    told = " ".join(show_keys(["recipe"]).split())
    for section in ("teacher", "student"):
        for key, value in recipe_values("robust", section, "mnist", {}).items():
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            assert f"{key} {shown}" in told or f"{value} for mnist" in told, key
    assert "learning_rate 0.001" in told and "weight_average 0.99" in told and "histology for colon" in told


@pytest.mark.parametrize(
    ("key", "said"),
    [("val_bags: 0", "data.val_bags: unknown key; data set mnist has it (known: "),
     ("mpp: 0.5", "data.mpp: unknown key; data set"),
     ("white_above: 0.9", "data.white_above: unknown key; data sets colon, ")],
)  # fmt: skip
def test_a_key_of_another_data_set_names_that_one(key: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"description: x\ndata: {{dataset: features, {key}}}\nmethods: {{none: {{}}}}\n")
    with pytest.raises(UserError, match=re.escape(said)):
        load_space(str(tmp_path / "s.yaml"))
