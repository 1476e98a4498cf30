"""The same rows from the ledger, from an exported file and from MLflow alone; and what is no source."""

import pytest
from make_study import make_distillation, make_study

import analysis
from analysis.rows.exported_files import export
from analysis.tables.study_table import render
from d2l_study.errors import UserError
from d2l_study.study.commands import sync
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.mlflow.study_page import study_page


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), missing=((0, 1),), failed=((2, 2),))
    make_distillation(root, num_bags=(50,), replicates=2, failed=(("vat", 1),))
    return root


@pytest.fixture(scope="module")
def uri(root):
    uri = f"sqlite:///{root / 'mlflow.db'}"
    for name in ("made", "distilled"):
        folder = find_study(name, str(root))
        page = study_page(folder)
        sync.sync_mlflow(folder, uri, tags=page.tags, params=page.params)
    return uri


@pytest.mark.parametrize("name", ["made", "distilled"])
def test_mlflow_alone_gives_the_rows_back(root, uri, name):
    ledger, there = analysis.load(name, root), analysis.load(name, tracking_uri=uri)
    keys = ["config_id", "method", "replicate"]
    ledger, there = (one.sort_values(keys).reset_index(drop=True) for one in (ledger, there))
    for column in ("stage", "status", "num_bags", "mean_bag_size", "lambda_adv", "bag_auc", "instance_auc", "repeat",
                   "seed", "teacher_id", "cause"):  # fmt: skip
        wanted, found = (one[column].astype(object).where(one[column].notna(), None) for one in (ledger, there))
        if column == "cause":  # MLflow keeps the first cause of a configuration
            wanted, found = wanted.notna(), found.notna()
        assert found.tolist() == wanted.tolist(), column
    assert there.attrs["varied"] == ledger.attrs["varied"]
    assert render(analysis.load(f"mlflow:{uri}#{name}")).splitlines()[4:8] == render(
        analysis.load(name, root)).splitlines()[4:8]  # fmt: skip


def test_arms_from_mlflow_stand_in_the_order_of_the_plan_not_of_the_training(tmp_path):
    folder, uri = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,)), f"sqlite:///{tmp_path / 'mlflow.db'}"
    plan = folder.plan()
    for now in (plan[::-1], plan):  # the page of vat is written first
        folder.write_plan(now)
        page = study_page(folder)
        sync.sync_mlflow(folder, uri, tags=page.tags, params=page.params)
    assert [*analysis.load("made", tracking_uri=uri)["method"].unique()] == ["none", "vat"]


def test_studies_of_a_store_are_named_where_none_or_a_wrong_one_is(uri):
    with pytest.raises(UserError, match=r"holds 2 studies.*distilled, made"):
        analysis.load(f"mlflow:{uri}")
    with pytest.raises(UserError, match="did you mean 'made'"):
        analysis.load("mad", tracking_uri=uri)


def test_an_exported_file_is_a_study_and_holds_no_path_of_this_machine(root, tmp_path):
    rows = analysis.load("made", root)
    path = export(rows, tmp_path / "rows.parquet")
    back = analysis.load(path)
    assert render(back) == render(rows)
    assert back.attrs["varied"] == rows.attrs["varied"]
    assert "folders" not in back.attrs and "folders" in rows.attrs
    assert str(root).encode() not in path.read_bytes()
    assert render(analysis.load(export(rows, tmp_path / "rows.csv"))) == render(rows)


def test_a_study_shown_beside_itself_counts_each_run_once(root, tmp_path):
    path = export(analysis.load("made", root), tmp_path / "rows.parquet")
    assert render(analysis.load(["made", path], root)).splitlines()[4:] == render(
        analysis.load("made", root)).splitlines()[4:]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.parquet", None, "no such file"),
        ("bad.parquet", b"no parquet", "cannot be read"),
        ("other.csv", b"a,b\n1,2\n", "lacks the columns study, config_id"),
        ("empty.csv", b"study,config_id,stage,method,replicate,status\n", "holds no rows"),
    ],
)
def test_files_that_hold_no_rows_are_named(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        analysis.load(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("bag_auc", "high", "found 'high', expected a number"),
        ("bag_auc", 1.7, "found 1.7, expected a number from 0 to 1"),
        ("replicate", None, "found nothing, expected a whole number from 0 on"),
        ("replicate", 0.5, "found 0.5, expected a whole number"),
        ("status", "finished", "found 'finished', expected done or failed or missing or pruned"),
    ],
)
def test_a_value_that_no_run_can_have_is_named_with_its_line_and_column(root, tmp_path, column, value, message):
    frame = analysis.load("made", root)
    frame[column] = frame[column].astype(object)
    frame.loc[2, column] = value
    frame.to_csv(tmp_path / "edited.csv", index=False)
    with pytest.raises(UserError, match=f"edited.csv: line 4, column {column}: {message}"):
        analysis.load(tmp_path / "edited.csv")


def test_a_folder_that_is_no_study_is_told_from_a_root_of_studies(root, tmp_path):
    with pytest.raises(UserError, match=r"this folder is no study, it holds no plan\.json; .*--root .*distilled, made"):
        analysis.load(root)
    with pytest.raises(UserError, match=r"no plan\.json$"):
        analysis.load(tmp_path)


def test_what_notebooks_use_is_there():
    assert all(callable(getattr(analysis, name)) for name in analysis.__all__)
    with pytest.raises(AttributeError, match="no attribute 'tabel'"):
        _ = analysis.tabel


def test_labels_of_a_study_come_back_from_mlflow(tmp_path):
    folder, uri = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,)), f"sqlite:///{tmp_path / 'mlflow.db'}"
    folder.write("d\n", {"space": {"description": "d", "labels": {"none": "Attention MIL"}}}, folder.plan())
    page = study_page(folder)
    sync.sync_mlflow(folder, uri, tags=page.tags, params=page.params)
    assert "Attention MIL" in render(analysis.load("made", tracking_uri=uri))
