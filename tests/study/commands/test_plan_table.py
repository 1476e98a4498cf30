"""`plan` of many configurations: sums by arm and axis that fit a screen, and all of them with --list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from d2l_study import cli
from d2l_study.study.commands.plan_table import FEW
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study

NUMBER = r"  +(?P<{}>[\d,]+)"
FAILED = r"(  +(?P<failed>\d+))?"
LINE = re.compile(r"^      (?P<name>.+?)" + "".join(map(NUMBER.format, ("runs", "done", "now"))) + FAILED
                  + r"  +(?P<time>none|\d.*)$")  # fmt: skip


def said_by(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> list[str]:
    assert cli.main(["plan", *words, "--root", str(root)]) == 0
    return capsys.readouterr().out.splitlines()


def blocks_of(lines: list[str]) -> dict[str, list[dict[str, str]]]:
    """Heading -> the lines below it."""
    found: dict[str, list[dict[str, str]]] = {}
    heading = ""
    for line in lines:
        if row := LINE.match(line):
            found[heading].append(row.groupdict())
        elif line.startswith("    ") and line[4] != " ":
            heading = re.split(r"  +", line.strip())[0]
            found[heading] = []
    return {name: rows for name, rows in found.items() if rows}


@pytest.mark.parametrize("space", ["vat_grid", "distill_grid", "regularizers", "mil_tuning"])
def test_a_large_plan_fits_a_screen(space, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = said_by(capsys, tmp_path, "--space", space)
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    listed = said_by(capsys, tmp_path, "--space", space, "--list")
    ids = [line for line in listed if re.match(r"    [0-9a-f]{10}  .*: \d+ of \d+ replicates to run$", line)]
    assert f"    --list lists all {len(ids)} configurations" in lines and f"  {len(ids)} trials × " in "\n".join(listed)


def test_every_part_of_the_table_sums_up_to_the_whole(tmp_path, capsys):
    found = blocks_of(said_by(capsys, tmp_path, "--space", "vat_grid"))
    assert {name: len(rows) for name, rows in found.items()} == {"arm": 9, "num_bags": 7, "mean_bag_size": 3}
    for rows in found.values():
        assert sum(int(row["runs"]) for row in rows) == sum(int(row["now"]) for row in rows) == 945


def test_an_axis_of_some_arms_counts_those_alone(tmp_path, capsys):
    found = blocks_of(said_by(capsys, tmp_path, "--space", "distill_grid"))
    assert [row["name"] for row in found["temperature, in 6 of 12 arms"]] == ["1", "2", "4"]
    assert [row["runs"] for row in found["temperature, in 6 of 12 arms"]] == ["180"] * 3
    assert "student_dropout" not in " ".join(found), "a key that only tells arms apart is no axis"


def test_what_is_there_and_what_has_failed_is_counted_where_it_is(tmp_path, capsys):
    study = prepare_study(RunOptions("vat_grid", root=str(tmp_path)))
    configuration = next(c for c in study.plan.configurations if c.label == "adv_low n=100 K=50")
    study.folder.ledger.write_config(configuration.config_id, {"values": configuration.values})
    study.folder.ledger.commit(configuration.config_id, 0, {"status": "done"}, {})
    study.folder.write_failure(configuration.config_id, 1, {"cause": "ValueError: made to fail", "log": ""})
    study.folder.write_failure(configuration.config_id, 0, {"cause": "failed once, and is done since", "log": ""})
    found = blocks_of(said_by(capsys, tmp_path, "--space", "vat_grid"))
    for heading, name in (("arm", "adv_low"), ("num_bags", "100"), ("mean_bag_size", "50")):
        for row in found[heading]:
            hit = row["name"] == name
            assert (row["done"], row["failed"]) == (("1", "1") if hit else ("0", "0")), row
            assert int(row["now"]) == int(row["runs"]) - hit
    limited = blocks_of(said_by(capsys, tmp_path, "--space", "vat_grid", "--limit", "2"))
    assert [(row["now"], row["time"] == "none") for row in limited["mean_bag_size"]] == [
        ("5", False), ("5", False), ("0", True)
    ]  # fmt: skip


def test_a_small_plan_lists_its_configurations(tmp_path, capsys):
    lines = said_by(capsys, tmp_path, "--space", "vat_quick")
    assert len([line for line in lines if line.endswith(": 5 of 5 replicates to run")]) == 4 <= FEW
    assert lines == said_by(capsys, tmp_path, "--space", "vat_quick", "--list")


def test_a_screen_that_is_narrower_has_shorter_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    lines = said_by(capsys, tmp_path, "--space", "vat_quick")
    assert max(map(len, lines)) <= 70
    assert "  varied: num_bags ∈ {50, 100}; lambda_adv ∈ {0, 0.5}" in lines


def test_a_key_varies_only_where_it_does_something(tmp_path, capsys):
    """The plain arm has the default ε, 4, which nothing reads."""
    space = tmp_path / "mine.yaml"
    text = "description: x\ndata: {num_bags: 50}\nmethods: {none: {}, vat: {teacher: {lambda_adv: 1, epsilon: %s}}}\n"
    axes = {"2": "lambda_adv ∈ {0, 1}", "[1, 2]": "lambda_adv ∈ {0, 1}; epsilon ∈ {1, 2}"}
    for written, said in axes.items():
        space.write_text(text % written)
        assert f"  varied: {said}" in said_by(capsys, tmp_path, "--space", str(space))
