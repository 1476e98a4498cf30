"""Files of a root are damaged in every way: nothing changes in silence, and what is advised makes it whole.

`make test-slow` draws a few cases, always the same; `make soak` takes them all, as many times as D2L_FUZZ_ROUNDS says.
"""

import os
import random

import pytest
from damage import kind_of
from root_attack import Attack

from d2l_study.errors import UserError
from d2l_study.study.mlflow.address import check_uri

QUICK = ("list", "status", "plan", "tables", "stop", "gc", "remove", "label")
ROUNDS = int(os.environ.get("D2L_FUZZ_ROUNDS", "1"))
COMMANDS = 7
"""So many commands look at each damaged file of a long round, drawn anew for each; then `run`."""


@pytest.fixture(scope="module")
def attack(tmp_path_factory):
    return Attack(tmp_path_factory.mktemp("attack"), ("students", "search"))


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    return Attack(tmp_path_factory.mktemp("longer"), ("students", "search", "drawn"))


@pytest.mark.slow
def test_the_root_holds_every_kind_of_file(attack):
    kinds = {kind_of(path) for path in attack.whole.files()}
    assert kinds >= {
        "mlflow.db", "mlartifacts", "results/config.json", "results/commit.json", "results/curve.json",
        "results/predictions.parquet", "results/weights.safetensors", "results/checkpoint.pt",
        "results/pruned-search.json", "studies/attempts", "studies/failures", "studies/lease.json", "studies/stop.json",
        "studies/plan.json", "studies/resolved.json", "studies/rows.parquet", "studies/rows.proof.json",
        "studies/search.json", "studies/space.yaml", "studies/report.html", "studies/local-1a2b3c4d.diff",
    }  # fmt: skip


@pytest.mark.slow
def test_a_few_damages_are_named_and_mended(attack):
    draw = random.Random(11)
    problems = []
    cases = list(attack.cases())
    labels = [label for label in attack.reading() if label.split()[0] in QUICK]
    for number, (files, damage) in enumerate(draw.sample(cases, 8)):
        commands = draw.sample(labels, 2)
        problems += attack.problems(draw.choice(files), damage, "short", commands, heal=number % 4 == 0)
    assert not problems, "\n".join(problems)


def test_a_plan_that_is_valid_json_and_no_plan_is_replaced(attack):
    """Records of version 1 have no digest: such a one is told by what it holds."""
    whole, plan = attack.whole, attack.whole.root / "studies" / "students" / "plan.json"
    whole.again()
    plan.write_text("{}")
    rows, said = whole.rows("students")
    assert rows == attack.rows["students"] and f"{plan} is damaged: its copy" in said
    plan.with_name("copies").joinpath("plan.json").write_text("{}")
    refused = whole.analysis("tables", "students")
    assert refused.code == 2 and str(plan) in refused.err and "`run`" in refused.err
    assert whole.run("students").code == 1 and whole.rows("students")[0].count("\n") == rows.count("\n")
    assert "damaged" not in whole.analysis("tables", "students").err


@pytest.mark.parametrize("content", [b"no database" * 500, b"SQLite format 3\0" + b"\xff" * 5000])
def test_of_a_damaged_mlflow_store_the_way_out_is_said(tmp_path, content):
    (tmp_path / "mlflow.db").write_bytes(content)
    with pytest.raises(UserError, match=r"mlflow\.db: .*; move it away, and `sync STUDY` makes"):
        check_uri(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_kind_of_damage_to_every_kind_of_file(longer, seed):
    problems, count, labels = [], 0, [*longer.reading(), *longer.writing()]
    for files, damage in longer.cases():
        draw = random.Random(f"{seed} {files[0]} {damage.__name__}")
        problems += longer.problems(draw.choice(files), damage, seed, draw.sample(labels, COMMANDS))
        count += 1
    print(f"{count} damaged files")
    assert not problems, "\n".join(problems)


@pytest.mark.soak
def test_flipped_bits_change_no_table_in_silence(longer):
    """Of the records that tables are made from, many more bits."""
    draw, problems = random.Random(5), []
    kinds = ("results/commit.json", "studies/plan.json", "studies/search.json", "results/pruned-search.json")
    files = [path for path in longer.whole.files() if kind_of(path) in kinds]
    flip = next(damage for _, damage in longer.cases() if damage.__name__ == "flip")
    for number in range(300 * ROUNDS):
        problems += longer.problems(draw.choice(files), flip, f"bit {number}", [], heal=False)
    assert not problems, "\n".join(problems)
