"""The report: its tables and pictures are there and right, it needs no network, and nothing of it fails a study."""

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from make_folds import make_folds
from make_study import make_study

import analysis
from analysis.cells.model_selection import selected_rows
from analysis.cli import main
from analysis.report.mlflow_links import find_mlflow_links
from analysis.report.report import make_report
from analysis.tables.study_table import table
from d2l_study.errors import UserError

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed by its own tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.resources, self.links, self.ids, self.heads = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.resources += [found[k] for k in ("src", "srcset", "data", "poster") if k in found]
        if tag == "link":
            self.resources.append(found.get("href", ""))
        if tag == "a":
            self.links.append(found["href"])
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.heads.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    found = tmp_path_factory.mktemp("runs")
    make_study(found, "made", num_bags=(50, 100), bag_sizes=(10,), with_predictions=True, failed=((0, 1), (2, 2)))
    return found


@pytest.fixture(scope="module")
def text(root):
    return make_report(analysis.load("made", root), root=str(root))


@pytest.mark.slow
def test_the_page_is_well_formed_and_needs_no_network(text):
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert len(page.resources) >= 5  # the figures
    assert all(one.startswith("data:image/") for one in page.resources)
    assert not re.search(r"""(url\(|@import|src=['"]?https?:|<link|<iframe|<object)""", text)
    assert all(link.startswith("#") for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    wanted = ["Summary", "Tables", "Comparisons", "Figures", "Best trials by validation", "Failures", "Provenance"]
    assert [head for head in page.heads if head in wanted] == wanted


def test_its_tables_are_those_of_the_commands(root, text):
    rows = analysis.load("made", root)
    tables = Page(text).tables
    for metric in ("bag_auc", "instance_auc"):
        for line in table(rows, metric).sheet().panels[0].groups[0].lines:
            wanted = [entry.text for entry in line.entries]
            assert any(row[1:] == wanted for one in tables for row in one), wanted
    compared = analysis.compare(rows).frame()
    p = f"{compared['p'].iloc[0]:.4f}" if compared["p"].iloc[0] < 0.1 else f"{compared['p'].iloc[0]:.2f}"
    assert any(p in row for one in tables for row in one)


def test_the_summary_counts_and_compares(root, text):
    rows = analysis.load("made", root)
    assert "<b>18</b><span>of 20 runs done</span>" in text
    assert "<b>2</b><span>failed</span>" in text
    done = rows[rows["status"] == "done"]
    assert "has the highest validation AUC" not in text
    d = (done[(done.num_bags == 100)].pivot(index="replicate", columns="method", values="bag_auc")).dropna()
    p = analysis.compare(rows).frame().query("num_bags == 100 and test == 't'")["p_holm"].iloc[0]
    told = "told apart" if p < 0.05 else "not told apart"
    assert len(d) == 5 and re.search(rf"n = 100: vat − none: .* \(5 pairs\); {told} \(p .* after Holm\)", text)
    assert re.search(r"n = 50: vat − none: .* \(3 pairs\); fewer than 5 pairs, no verdict", text)


def test_failures_have_their_cause_and_the_command_that_repeats_them(root, text):
    failed = analysis.load("made", root).query("status == 'failed'")
    assert "2 runs: <code>ValueError: made to fail</code>" in text
    command = f"d2l trial --id {failed.trial_id.iloc[0]} --replicate {failed.replicate.iloc[0]} --root"
    assert command in text


def test_a_large_study_shows_what_validation_chose(tmp_path):
    rows = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), methods=("vat",), replicates=3).rows()
    rng = np.random.default_rng(0)
    parts = []
    for i in range(70):
        moved = rows.assign(config_id=f"c{i:02d}", trial_id=f"c{i:02d}", learning_rate=float(i))
        parts.append(moved.assign(val_bag_auc=rng.uniform(0.5, 0.9, 3), bag_auc=rng.uniform(0.5, 0.9, 3)))
    import pandas as pd

    many = pd.concat(parts, ignore_index=True)
    many.attrs = {"study": "made", "varied": ["learning_rate"]}
    best = many.groupby("config_id")["val_bag_auc"].mean().idxmax()
    assert selected_rows(many)["config_id"].unique().tolist() == [best]
    page = Page(make_report(many))
    assert any(row[0] == best for one in page.tables for row in one)
    value = f"{many[many.config_id == best]['bag_auc'].mean():.3f}"
    cells = [row for one in page.tables for row in one if row and row[0] == "vat"]
    assert [row[1].split()[0] for row in cells][:1] == [value]


def test_an_unfinished_study_has_a_report_too(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=1, missing=((0, 0), (1, 0)))
    page = make_report(analysis.load("made", tmp_path))
    assert "No run is finished" in page
    assert "2 planned runs are not there yet" in page
    Page(page)


def test_an_arm_that_failed_throughout_leaves_a_sentence_in_the_place_of_the_comparison(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), failed=tuple((1, r) for r in range(5)))
    text = make_report(analysis.load("made", tmp_path), root=str(tmp_path))
    assert "No paired comparison with method=none: no replicate is finished both there and in another row." in text


def test_text_of_a_study_is_escaped(tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2, failed=((0, 0),))
    entry = folder.plan()[0]
    folder.write_failure(entry["config_id"], 0, {"cause": "<script>alert(1)</script>", "log": "<b>"})
    resolved = folder.resolved() | {"space": {"description": "a <b> & c"}}
    folder.write("a: <script>\n", resolved, folder.plan())
    page = make_report(analysis.load("made", tmp_path))
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert(1)" in page
    assert "a &lt;b&gt; &amp; c" in page
    Page(page)


def test_links_lead_to_the_pages_of_a_local_store(tmp_path):
    import sqlite3

    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.executescript(
        "CREATE TABLE experiments (experiment_id, name); CREATE TABLE runs (run_uuid, experiment_id, lifecycle_stage);"
        "CREATE TABLE tags (key, value, run_uuid); INSERT INTO experiments VALUES (3, 'made'), (4, 'other');"
        "INSERT INTO runs VALUES ('r1', 3, 'active'), ('r2', 3, 'deleted'), ('r3', 4, 'active'), ('p', 3, 'active');"
        "INSERT INTO tags VALUES ('d2l.config_id', 'a', 'r1'), ('d2l.config_id', 'b', 'r2'),"
        "('d2l.config_id', 'c', 'r3'), ('d2l.kind', 'study', 'p');"
    )
    database.commit()
    pages = find_mlflow_links("made", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert pages.by_config == {"a": "http://127.0.0.1:5000/#/experiments/3/runs/r1?workflowType=machine_learning"}
    assert pages.study.endswith("/runs/p?workflowType=machine_learning")
    assert find_mlflow_links("made", f"sqlite:///{tmp_path / 'no.db'}").by_config == {}
    (tmp_path / "broken.db").write_text("no database")
    assert find_mlflow_links("made", f"sqlite:///{tmp_path / 'broken.db'}").by_config == {}


def test_the_command_writes_a_file_and_answers_mistakes(root, tmp_path, capsys):
    out = tmp_path / "r.html"
    make_study(tmp_path, "small", num_bags=(50,), bag_sizes=(10,), replicates=2)
    assert main(["report", "small", "--root", str(tmp_path), "--out", str(out)]) == 0
    Page(out.read_text())
    for arguments, words in (
        (["report", "mdae", "--root", str(root), "--out", str(out)], "did you mean 'made'"),
        (["report", "made", "--root", str(root), "--out", "r.pdf"], "expected .html"),
        (["report", "made", "made", "--root", str(root), "--out", str(out)], "about one study, found 2"),
        (["figure", "made", "--kind", "rco", "--out", "f.png"], "did you mean 'roc'"),
        (["figure", "made", "--kind", "roc", "--rows", "n", "--out", "f.png"], "not of --kind roc"),
        (["figure", "made", "--level", "bag", "--out", "f.png"], "not of --kind curves (it is of roc, pr, reliab"),
        (["figure", "made", "--root", str(root), "--where", "num_bags=51", "--out", "f.png"], "there: 50, 100"),
        (["figure", "made", "--root", str(root), "--where", "num_bgs=50", "--out", "f.png"], "did you mean 'num_bags'"),
        (["figure", "made", "--size", "pag", "--out", "f.png"], "did you mean 'page'"),
    ):  # fmt: skip
        assert main(arguments) == 2
        assert words in capsys.readouterr().err, arguments


def test_several_studies_have_no_report(root):
    rows = analysis.load("made", root)
    with pytest.raises(UserError, match="found 2: made, other"):
        make_report(rows.assign(study=["made", "other"] * (len(rows) // 2)))


def test_a_report_that_cannot_be_made_costs_a_warning(tmp_path, capsys, monkeypatch):
    from d2l_study.study.commands import table_and_report

    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2)
    assert table_and_report.report_of(folder, "") == {}  # the tests' own wish, in conftest
    monkeypatch.setenv("D2L_REPORT", "yes")
    data = table_and_report.report_of(folder, "")["report.html"]
    assert folder.storage.read(f"{folder.key}/report.html") == data
    Page(data.decode())
    monkeypatch.setattr("analysis.report.report.make_report", lambda *a, **k: 1 / 0)
    assert table_and_report.report_of(folder, "") == {}
    assert "warning: the report of made could not be made: ZeroDivisionError" in capsys.readouterr().err
    assert b"No report" in table_and_report.report_artifact(folder, "")["report.html"]()


def test_a_study_keeps_the_figure_that_says_most_of_it(tmp_path, monkeypatch):
    from PIL import Image

    from d2l_study.study.commands import table_and_report

    folder = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), replicates=2)
    monkeypatch.setenv("D2L_REPORT", "yes")
    made = table_and_report.report_of(folder, "")
    assert sorted(made) == ["figure.png", "report.html"]
    assert folder.storage.read(f"{folder.key}/figure.png") == made["figure.png"]
    with Image.open(io.BytesIO(made["figure.png"])) as picture:
        assert picture.format == "PNG" and picture.width > 500


@pytest.mark.parametrize("folds", [2, 3])
def test_a_study_of_few_folds_keeps_a_figure_too(tmp_path, monkeypatch, folds):
    from d2l_study.study.commands import table_and_report

    folder = make_folds(tmp_path, images=24, folds=folds, repeats=1)
    monkeypatch.setenv("D2L_REPORT", "yes")
    drawn, figure = [], analysis.figure
    monkeypatch.setattr(analysis, "figure", lambda *a, **k: drawn.append(a[1]) or figure(*a, **k))
    assert sorted(table_and_report.report_of(folder, "")) == ["figure.png", "report.html"]
    assert drawn == ["curves"]


def test_a_large_study_draws_what_validation_chose(tmp_path, monkeypatch):
    from d2l_study.study.commands import table_and_report

    folder = make_study(tmp_path, num_bags=tuple(range(10, 80)), bag_sizes=(10,), replicates=2)
    rows = folder.rows()
    several = rows.assign(num_bags=50, epsilon=rows["num_bags"].astype(float))
    several.attrs = {**rows.attrs, "varied": ["epsilon", "lambda_adv"]}
    drawn, figure = [], analysis.figure
    monkeypatch.setattr(analysis, "figure", lambda *a, **k: drawn.append(a[0]) or figure(*a, **k))
    assert table_and_report._main_figure(several, folder)
    assert several["config_id"].nunique() == 140 and drawn[0]["config_id"].nunique() == 2


def test_a_search_has_figures_of_its_own(tmp_path, monkeypatch):
    from d2l_study.study.commands import table_and_report
    from d2l_study.study.ledger import search_document

    folder = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,), replicates=2)
    assert table_and_report._main_figure(folder.rows(), folder)
    monkeypatch.setattr(search_document, "read_document", lambda folder: {"trials": []})
    assert table_and_report._main_figure(folder.rows(), folder) == {}


def test_score_maps_are_those_of_the_best_of_each_stage_on_validation(monkeypatch):
    """Also where a class map ranks above the teacher, and whatever the test says."""
    import io
    from types import SimpleNamespace

    import pandas as pd
    from PIL import Image

    from analysis.report.figure_section import score_maps
    from d2l_study.study.mlflow import map_pictures

    runs = [  # config, stage, method, validation, test
        ("t1", "teacher", "none", 0.7, 0.99), ("t2", "teacher", "vat", 0.8, 0.6),
        ("s1", "student", "none → s", 0.6, 0.9),
        ("c1", "cam", "cam", 0.95, 0.5), ("p1", "peak", "peak", 0.9, 0.5), ("o1", "oracle", "oracle", 1.0, 1.0),
    ]  # fmt: skip
    rows = pd.DataFrame(
        [{"config_id": c, "trial_id": c, "stage": s, "method": m, "val_bag_auc": v, "instance_auc": i, "status": "done",
          "teacher_id": "t1" if s == "student" else None, "dataset": "colon"} for c, s, m, v, i in runs]
    )  # fmt: skip
    ledger = SimpleNamespace(read_config=lambda config: {"sections": {"data": {"dataset": "colon"}}})
    folder = SimpleNamespace(ledger=ledger, resolved=lambda: {"space": {}})
    asked = []

    def drawn(folder, config, teacher, replicate):
        asked.append((config, teacher))
        out = io.BytesIO()
        Image.new("RGB", (8, 8)).save(out, "PNG")
        return {"overlays/1.png": out.getvalue}

    monkeypatch.setattr(map_pictures, "map_pictures", drawn)
    pieces = score_maps(rows, folder)
    assert asked == [("t2", None), ("s1", "t1"), ("c1", None), ("p1", None)]
    assert [word in piece for word, piece in zip(("vat", "none → s", "cam", "peak"), pieces, strict=True)] == [True] * 4


@pytest.mark.slow
def test_instances_are_shown_with_intervals_over_images_where_there_are_not_too_many(tmp_path, monkeypatch):
    make_folds(tmp_path, "tiled", images=20, folds=3, repeats=1, tiles=True)
    rows = analysis.load("tiled", tmp_path)
    text = make_report(rows)
    assert "Instances in the test images" in text and "bootstrap samples of whole images" in text and "FROC" in text
    monkeypatch.setattr("analysis.report.report.MOST_DRAWN", 100)
    few = make_report(rows.assign(test_instances=20), root=str(tmp_path))
    assert f"tables tiled --intervals images --root {tmp_path}" in few and "bootstrap samples of whole" not in few
    make_folds(tmp_path, "older", images=20, folds=3, repeats=1, data="other")
    older = make_report(analysis.load("older", tmp_path))
    assert "bootstrap samples of whole images" in older and "FROC" not in older


def test_what_was_studied_leaves_out_values_that_nothing_reads(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2)
    rows = analysis.load("made", tmp_path)
    rows.attrs["varied"] = ["epsilon", "lambda_adv"]
    rows.loc[rows["method"] == "vat", "epsilon"] = 4.0  # the plain arm has 2, which it does not read
    page = Page(make_report(rows))
    assert ["epsilon", "4"] in page.tables[0]
    best = next(one for one in page.tables if "settings" in one[0])
    settings = {line[best[0].index("arm")]: line[best[0].index("settings")] for line in best[1:]}
    assert settings == {"none": "lambda_adv=0", "vat": "epsilon=4, lambda_adv=1"}


@pytest.mark.parametrize(
    ("select", "eval_every", "said"),
    [("last", 10, "Nothing was chosen"), ("auc", 10, "Validation bags chose the snapshots of the runs"),
     ("auc", 100, "Nothing was chosen"), (None, None, "Test figures chose nothing")],
)  # fmt: skip
def test_it_is_said_what_validation_chose(tmp_path, select, eval_every, said):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2)
    rows = analysis.load("made", tmp_path)
    rows = rows.assign(select=select, eval_every=eval_every, steps=100) if select else rows
    rows.attrs = analysis.load("made", tmp_path).attrs
    assert said in make_report(rows)
    optimistic = "Validation bags also chose the snapshots" in table(rows, "val_bag_auc").text()
    assert optimistic == (said != "Nothing was chosen")
