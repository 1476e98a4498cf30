"""`python -m d2l_study new`: a first space that can be run as it is written."""

import pytest

from d2l_study import cli
from d2l_study.data import DATASETS
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.space.load import load_space


@pytest.mark.parametrize("students", [False, True])
@pytest.mark.parametrize("dataset", [*DATASETS, "slides"])
def test_what_it_writes_is_a_space_on_the_robust_recipe(dataset, students, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    assert cli.main(["new", str(path), "--data", dataset, *(["--students"] if students else [])]) == 0
    assert f"plan --space {path}" in capsys.readouterr().out
    space = load_space(path)
    points = list(space.points())
    expected = "manifest" if dataset == "slides" else dataset
    assert space.recipe == "robust" and {p["data"].dataset for _, p in points} == {expected}
    assert all(p["teacher"].select == "last" for _, p in points)
    tuned = (1.0, 5.0) if dataset == "features" else (0.3, 2.0)  # the radius follows the length of an instance
    assert [(p["teacher"].lambda_adv, p["teacher"].epsilon) for _, p in points][-1] == tuned
    assert max(len(line) for line in path.read_text().splitlines()) <= 110


@pytest.mark.parametrize(
    ("dataset", "keys"),
    [
        ("features", {"label_column", "positive", "bag", "label_table", "splits", "skip_empty"}),
        ("manifest", {"patch_size", "stride", "root"}),
        ("slides", {"positive_classes", "root"}),
    ],
)
def test_what_most_cohorts_need_is_there_as_comments_that_hold(dataset, keys, tmp_path):
    path = tmp_path / "mine.yaml"
    assert cli.main(["new", str(path), "--data", dataset, "--students"]) == 0
    text = path.read_text()
    assert {line.split(":")[0].removeprefix("  # ") for line in text.splitlines() if line.startswith("  # ")} == keys
    path.write_text(text.replace("\n  # ", "\n  "))  # a comment that is taken away leaves a key with a value
    space = load_space(path)
    assert keys < space.sections["data"].keys() and space.sections["data"]["folds"] == space.replicates == 5


def test_its_students_stand_beside_their_controls(tmp_path):
    assert cli.main(["new", str(tmp_path / "mine.yaml"), "--students"]) == 0
    stages = {c.stage for c in configurations(load_space(tmp_path / "mine.yaml"), "")}
    assert stages == {"teacher", "student", "matched", "no_soft_labels", "pooled"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["there.yaml"], "there.yaml: is there already"),
        (["my_space"], "ends in .yaml"),
        (["no/where.yaml"], "no folder no"),
        (["a.yaml", "--data", "colno"], "did you mean 'colon'?"),
        (["a.yaml", "--data", "slide"], "did you mean 'slides'?"),
    ],
)
def test_it_overwrites_nothing_and_says_what_is_wrong(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("mine")
    assert cli.main(["new", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["there.yaml"] and (tmp_path / "there.yaml").read_text() == "mine"
