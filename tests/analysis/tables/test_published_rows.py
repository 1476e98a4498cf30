"""Published figures stand only under headings that are true of them, and only what is shown is cited."""

import pytest
from make_folds import make_folds

import analysis
from analysis.cli import main
from analysis.tables.study_table import table

GROUP = "published, other splits"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Colon with 10, with 30 and with all training bags, and another data set."""
    root = tmp_path_factory.mktemp("runs")
    how = {"images": 40, "folds": 4, "repeats": 1}
    make_folds(root, "c10", train_bags=10, **how)
    make_folds(root, "c30", train_bags=30, **how)
    make_folds(root, "whole", **how)
    make_folds(root, "breasted", dataset="breast", **how)
    return str(root)


def published(made):
    """Method -> the texts of its entries, of each panel that has such rows."""
    return [
        {line.head: [entry.text for entry in line.entries] for line in group.lines}
        for panel in made.sheet().panels
        for group in panel.groups
        if group.heading == GROUP
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--columns", "num_bags", "--metric", "bag_auc"], "not of one value of num_bags: expected --columns metric"),
        (["--panel", "method", "--rows", "num_bags", "--metric", "bag_auc"], "value of method: expected --panel none"),
        (["--metric", "bag_ap"], "none is of bag_ap (there are of bag_auc, bag_accuracy, bag_precision"),
        (["--format", "csv"], "--published: not in csv"),
    ],
)  # fmt: skip
def test_where_no_published_figure_can_stand_the_command_says_why(root, capsys, options, said):
    assert main(["tables", "c10", "whole", "--root", root, "--published", *options]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and not shown.out


def test_a_table_in_python_cites_only_what_it_shows(root):
    rows = analysis.load(["c10", "whole"], root)
    for options in ({"metric": "bag_auc", "column_key": "num_bags"}, {"metric": "bag_ap"}):
        made = table(rows, with_published=True, **options)
        text = " ".join(made.text().split())
        assert not published(made) and "PMC10072016" not in text
        assert "Without published figures: " in text
    made = table(analysis.load(["whole", "c10"], root), "bag_auc", with_published=True)
    (found,) = published(made)
    assert found["attention"] == ["0.959"] and "PMC10072016" in made.text()


def test_beside_runs_of_a_part_of_the_bags_alone_stands_no_published_figure(root, capsys):
    said = "every run here trained on a part of them (n = 10, 30)"
    assert main(["tables", "c10", "c30", "--root", root, "--published", "--metric", "bag_auc"]) == 2
    assert said in capsys.readouterr().err
    made = table(analysis.load(["c10", "c30"], root), "bag_auc", with_published=True)
    assert not published(made) and said in " ".join(made.text().split())
    beside = table(analysis.load(["c10", "breasted"], root), "bag_auc", column_key="dataset", panel_key=None,
                   with_published=True)  # fmt: skip
    assert not published(beside)


def test_each_data_set_has_its_own_published_figures(root, capsys):
    rows = analysis.load(["whole", "breasted"], root)
    beside = table(rows, "bag_auc", column_key="dataset", panel_key=None, with_published=True)
    (found,) = published(beside)
    columns = [column.value for column in beside.layout.columns]
    assert dict(zip(columns, found["attention"], strict=True)) == {"colon": "0.959", "breast": "–"}
    assert len(published(table(rows, "bag_auc", with_published=True))) == 1  # a panel for each data set
    options = ["--root", root, "--published", "--metric", "bag_auc", "--panel", "none"]
    assert main(["tables", "whole", "breasted", *options]) == 2
    assert "expected --panel dataset" in capsys.readouterr().err
