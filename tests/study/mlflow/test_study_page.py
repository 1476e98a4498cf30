"""What MLflow shows of a whole study: done or not, what is left, the best on validation; and where links lead."""

import math

from make_study import make_distillation, make_study
from mlflow_runs import runs_of

from analysis.report.mlflow_links import find_mlflow_links
from d2l_study.study.commands.sync import sync_mlflow
from d2l_study.study.mlflow.address import client
from d2l_study.study.mlflow.links import experiment_url, run_path
from d2l_study.study.mlflow.study_page import study_metrics, study_tags


def row(method, config, value, status="done"):
    return {"method": method, "config_id": config, "status": status, "val_bag_auc": value}


def test_the_best_of_each_arm_is_its_best_configuration_by_the_mean_of_its_replicates():
    rows = [
        row("none", "a", 0.9), row("none", "a", 0.5), row("none", "b", 0.8), row("none", "b", 0.8),
        row("vat", "c", 0.6), row("vat", "c", 0.99, "failed"), row("vat", "d", math.nan),
        row("vat", "e", None, "missing"),
        {"method": "attention", "config_id": "f", "status": "done"},
    ]  # fmt: skip
    assert study_metrics(rows) == {"best_val_bag_auc": 0.8, "best_val_bag_auc/none": 0.8, "best_val_bag_auc/vat": 0.6}
    assert study_metrics([]) == {}
    assert study_tags(rows) == {"d2l.replicates": "7 of 9", "d2l.left": "1 run"}
    assert study_tags(rows[:4]) == {"d2l.replicates": "4 of 4", "d2l.left": ""}
    assert study_tags(rows, 12)["d2l.left"] == "12 runs"  # a search that has not asked for all


def test_what_is_left_for_another_time_is_no_failure_and_a_study_that_was_stopped_stays_so(tmp_path, uri):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2, missing=((1, 0), (1, 1)))
    sync_mlflow(folder, uri)
    (parent,), children = runs_of(uri)
    assert parent.info.status == "FINISHED" and parent.data.tags["d2l.left"] == "2 runs" and len(children) == 1
    assert parent.data.metrics.keys() == {"best_val_bag_auc", "best_val_bag_auc/none"}
    store = client(uri)
    store.set_terminated(parent.info.run_id, "KILLED")  # Ctrl-C, say
    sync_mlflow(folder, uri)
    assert runs_of(uri)[0][0].info.status == "KILLED"


def test_a_study_of_students_has_the_best_of_all_its_arms(tmp_path, uri):
    folder = make_distillation(tmp_path, num_bags=(50,), teachers=("none",), students=("plain",), replicates=2)
    sync_mlflow(folder, uri)
    (parent,), _ = runs_of(uri, "distilled")
    arms = {name.partition("/")[2] for name in parent.data.metrics}
    assert parent.info.status == "FINISHED" and parent.data.tags.get("d2l.left", "") == ""
    assert arms == {"", "none", "none _ plain", "bag_label", "oracle"}


def test_every_link_opens_the_pages_of_training(tmp_path, uri):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2)
    sync_mlflow(folder, uri)
    pages = find_mlflow_links("made", uri)
    for address in (*pages.by_config.values(), pages.study):
        assert address.startswith("http://127.0.0.1:5000/#/experiments/1/runs/")
        assert address.endswith("?workflowType=machine_learning")
    assert run_path("1", "r", "report.html") == (
        "#/experiments/1/runs/r/artifacts/report.html?workflowType=machine_learning"
    )
    assert experiment_url("http://me:secret@host:1/", "3") == (
        "http://host:1/#/experiments/3/runs?viewStateShareKey=d2l&workflowType=machine_learning"
    )
