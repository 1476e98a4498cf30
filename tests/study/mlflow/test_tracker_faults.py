"""Two drivers that write one study for a moment, and a disk that is full: nothing twice, nothing alarming."""

import subprocess
import sys

import pytest
from mlflow_runs import PARAMS, begin, rows_of, runs_of, until

from d2l_study.study.mlflow.pages import StudyPages
from d2l_study.study.mlflow.store import StudyRuns
from d2l_study.study.mlflow.tracker import Tracker
from d2l_study.study.mlflow.writer import PageWriter


def started(uri, **more):
    """The pages of a driver, and what writes them."""
    pages = StudyPages("made")
    pages.begin_study({}, {}, {})
    writer = PageWriter(pages, uri, **more)
    assert writer.flush()
    return pages, writer


def finish(pages, writer):
    begin(pages)
    pages.report("c1", 5, {0: {"val_bag_auc": 0.5}})
    pages.finish("c1", rows_of([0.8]), {"config.yaml": "a: 1"})
    assert writer.flush()


def test_a_run_that_another_driver_has_begun_is_taken_up_and_not_made_again(uri):
    first, second = started(uri), started(uri)  # the first was not heard of for long, and lives
    for driver in (second, first):
        finish(*driver)
    parents, children = runs_of(uri)
    assert len(parents) == 1 and len(children["c1"]) == 1
    assert children["c1"][0].data.metrics["bag_auc"] == 0.8


def test_of_two_made_at_the_same_moment_one_is_left_at_the_end_of_the_command(uri, monkeypatch):
    first = started(uri)
    second = Tracker(uri, "made", flush_seconds=0.05)
    second.start({}, {}, {})
    until(lambda: second.writer.opened)
    monkeypatch.setattr(StudyRuns, "_made_by_another", lambda runs, key: None)  # neither has seen the other's yet
    finish(*first)
    begin(second)
    second.finish("c1", rows_of([0.8]), {})
    until(lambda: len(runs_of(uri)[1].get("c1", [])) == 2)
    second.end("FINISHED", {})
    assert second.close(60)
    parents, children = runs_of(uri)
    assert len(parents) == 1 and len(children["c1"]) == 1 and parents[0].info.status == "FINISHED"
    assert children["c1"][0].data.metrics["bag_auc"] == 0.8 and children["c1"][0].data.params["num_bags"] == "50"


def test_a_driver_that_has_lost_its_study_writes_nothing_more(uri):
    ours = [True]
    pages, writer = started(uri, ours=lambda: ours[0])
    begin(pages)
    assert writer.flush()
    ours[0] = False
    pages.finish("c1", rows_of([0.1]), {})
    pages.end("KILLED", {})
    assert writer.flush() and not pages.changed
    parents, children = runs_of(uri)
    assert [run.info.status for run in (*parents, *children["c1"])] == ["RUNNING", "RUNNING"]
    assert PARAMS["num_bags"] == 50 and "bag_auc" not in children["c1"][0].data.metrics


FULL = """
import resource, signal, sys
from pathlib import Path
from d2l_study.study.mlflow.tracker import Tracker
path = Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for room in (1000, path.stat().st_size):  # nothing can be written, or nothing more
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, most))
    tracker = Tracker(f"sqlite:///{path}", "made", flush_seconds=0.1)
    tracker.start({"a": "b" * 4000}, {f"p{i}": "x" * 500 for i in range(100)}, {"a.txt": "x"})
    tracker.end("FINISHED", {})
    assert not tracker.close(30)
    print(tracker.problems)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
"""


@pytest.mark.slow
def test_a_disk_that_takes_no_more_is_a_line_and_no_traceback(uri, tmp_path):
    said = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "mlflow.db")], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert "Traceback" not in said.stderr and "sqlalchemy" not in said.stderr.lower()
    line = f"MLflow at sqlite:///{tmp_path}/mlflow.db: the disk is full, or fails; the results are in the ledger"
    assert said.stdout.splitlines() == [line, line]
