"""Several values of a key on the command line: any of them where runs are chosen, else an error that names both."""

import pytest
from make_study import make_study

import analysis
from analysis.cells.row_filter import rows_where
from analysis.cli import main
from analysis.cli_arguments import key_choices, parse


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100, 200), bag_sizes=(10,), replicates=3, with_predictions=True)
    return str(root)


def test_runs_with_any_of_several_values_are_chosen(root):
    rows = analysis.load("made", root, labels={"vat": "VAT"})
    chosen = rows_where(rows, {"num_bags": ["50", "100"], "method": "none"})
    assert set(chosen["num_bags"]) == {50, 100} and set(chosen["method"]) == {"none"} and len(chosen) == 6
    assert chosen.attrs["study"] == "made"
    assert len(rows_where(rows, {"method": ["none", "VAT"]})) == len(rows)  # as the space and as tables have it
    with pytest.raises(ValueError, match="--where num_bags=70: no run has it"):
        rows_where(rows, {"num_bags": ["50", "70"]})


@pytest.mark.parametrize("given", [["num_bags=50", "num_bags=100"], ["num_bags=50", "--where", "num_bags=100"]])
def test_the_option_takes_them_together_or_one_by_one(root, tmp_path, given, monkeypatch):
    drawn = []
    monkeypatch.setattr("analysis.figures.files.save_figure", lambda figure, _: drawn.append(figure))
    arguments = ["--root", root, "--kind", "roc", "--out", str(tmp_path / "f.png"), "--where", *given]
    assert main(["figure", "made", *arguments]) == 0
    assert [axis.get_title() for axis in drawn[0].axes] == ["K = 10, n = 50", "K = 10, n = 100"]
    assert key_choices(parse(["figure", "made", *arguments]).where, "--where") == {"num_bags": ["50", "100"]}


def test_predictions_of_any_of_several_values(root):
    found = analysis.load_predictions("made", root, num_bags=[50, 100], method="vat", replicate=0, level="bag")
    parts = [
        analysis.load_predictions("made", root, num_bags=n, method="vat", replicate=0, level="bag") for n in (50, 100)
    ]
    assert len(found) == sum(map(len, parts)) > 0
    assert found["config_id"].nunique() == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "--baseline", "method=none", "method=vat"], "method=none method=vat: two values of method"),
        (["compare", "--baseline", "method=none", "--baseline", "method=vat"], "two values of method; expected one"),
        (["tables", "--label", "none=A", "none=B"], "--label none=A none=B: two values of none"),
    ],
)  # fmt: skip
def test_two_values_where_one_is_meant_are_both_named(root, capsys, arguments, said):
    command, *options = arguments
    assert main([command, "made", "--root", root, *options]) == 2
    assert said in capsys.readouterr().err


def test_replicates_given_one_by_one_are_all_taken(root, capsys):
    arguments = ["--root", root, "--test", "delong", "--format", "csv", "--replicate", "0", "--replicate", "2"]
    assert main(["compare", "made", *arguments, "--baseline", "method=none", "method=none"]) == 0
    printed = capsys.readouterr().out.splitlines()
    place = printed[0].split(",").index("replicate")
    assert {line.split(",")[place] for line in printed[1:]} == {"0", "2"}
