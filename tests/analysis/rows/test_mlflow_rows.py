"""The same rows from MLflow alone as from the ledger."""

import pytest
from make_study import make_study

import analysis
from analysis.tables.study_table import render
from d2l_study.errors import UserError
from d2l_study.study.commands import sync
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.mlflow.address import client
from d2l_study.study.mlflow.study_page import study_page


@pytest.fixture(scope="module")
def uri(failing_root):
    uri = f"sqlite:///{failing_root / 'mlflow.db'}"
    for name in ("made", "distilled"):
        folder = find_study(name, str(failing_root))
        page = study_page(folder)
        sync.sync_mlflow(folder, uri, tags=page.tags, params=page.params)
    return uri


@pytest.mark.slow
@pytest.mark.parametrize("name", ["made", "distilled"])
def test_mlflow_alone_gives_the_rows_back(failing_root, uri, name):
    ledger, there = analysis.load(name, failing_root), analysis.load(name, tracking_uri=uri)
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
        analysis.load(name, failing_root)).splitlines()[4:8]  # fmt: skip


def test_arms_from_mlflow_stand_in_the_order_of_the_plan_not_of_the_training(tmp_path):
    folder, uri = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,)), f"sqlite:///{tmp_path / 'mlflow.db'}"
    plan = folder.plan()
    for now in (plan[::-1], plan):  # the page of vat is written first
        folder.write_plan(now)
        page = study_page(folder)
        sync.sync_mlflow(folder, uri, tags=page.tags, params=page.params)
    assert [*analysis.load("made", tracking_uri=uri)["method"].unique()] == ["none", "vat"]


@pytest.mark.parametrize("too_long", [False, True])
def test_a_run_that_the_ledger_lost_is_missing_in_mlflow_too(tmp_path, too_long):
    folder, uri = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2), f"sqlite:///{tmp_path / 'm.db'}"
    sync.sync_mlflow(folder, uri)
    (folder.storage.root / folder.ledger.run_key(folder.plan()[0]["config_id"], 1) / "commit.json").unlink()
    sync.sync_mlflow(folder, uri)
    if too_long:  # then MLflow has the facts of the rows cut, and they are guessed from the metrics
        store = client(uri)
        for run in store.search_runs([store.get_experiment_by_name("made").experiment_id]):
            store.set_tag(run.info.run_id, "d2l.rows", "{")
    rows = analysis.load("made", tracking_uri=uri)
    found = {(row.method, row.replicate): (row.status, row.bag_auc > 0) for row in rows.itertuples()}
    done = ("done", True)
    assert found == {("none", 0): done, ("none", 1): ("missing", False), ("vat", 0): done, ("vat", 1): done}


def test_studies_of_a_store_are_named_where_none_or_a_wrong_one_is(uri):
    with pytest.raises(UserError, match=r"holds 2 studies.*distilled, made"):
        analysis.load(f"mlflow:{uri}")
    with pytest.raises(UserError, match="did you mean 'made'"):
        analysis.load("mad", tracking_uri=uri)


def test_labels_of_a_study_come_back_from_mlflow(tmp_path):
    folder, uri = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,)), f"sqlite:///{tmp_path / 'mlflow.db'}"
    folder.write("d\n", {"space": {"description": "d", "labels": {"none": "Attention MIL"}}}, folder.plan())
    page = study_page(folder)
    sync.sync_mlflow(folder, uri, tags=page.tags, params=page.params)
    assert "Attention MIL" in render(analysis.load("made", tracking_uri=uri))
