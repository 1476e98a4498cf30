"""Searches of every kind whose driver is killed in the middle: nothing lost, nothing repeated, the same budget."""

import json
import os
import signal

import pytest
from studies import DIGITS, Place, digits, end_session

import analysis
from analysis.__main__ import main as analyse
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_folder import StudyFolder

pytestmark = pytest.mark.soak

TEACHERS = """
description: a search of a few seconds
data: {{num_bags: 12, mean_bag_size: 3, test_bags: 50{digits}}}
teacher: {{steps: {steps}, eval_every: 12, feature_width: 16, attention_width: 8, patience: 0}}
methods:
  vat: {{teacher: {{lambda_adv: {{low: 0.1, high: 3}}, learning_rate: {{low: 1e-6, high: 1e-2, log: true}}}}}}
replicates: 2
base_seed: 3
resources: {{checkpoint_every: 12}}
{search}
"""
STUDENTS = """
description: a search over students of a few seconds
data: {{num_bags: 12, mean_bag_size: 3, test_bags: 50{digits}}}
teacher: {{steps: 24, eval_every: 12, feature_width: 16, attention_width: 8, patience: 0}}
student: {{steps: {steps}, eval_every: 12, feature_width: 16}}
teachers: {{plain: {{}}}}
methods:
  soft: {{student: {{temperature: {{low: 1, high: 4}}, alpha: {{choices: [0.0, 1.0]}}}}}}
replicates: 2
base_seed: 3
resources: {{checkpoint_every: 12}}
{search}
"""
BUDGET = 8
KINDS = {
    "tpe": "search: {method: tpe, trials: 8, startup: 4}",
    "gp": "search: {method: gp, trials: 8, startup: 4}",
    "cmaes": "search: {method: cmaes, trials: 8, startup: 4}",
    "random": "search: {method: random, trials: 8}",
    "asha": "search: {method: tpe, trials: 8, startup: 4}\nschedule: asha",
    "median": "search: {method: gp, trials: 8, startup: 4}\nschedule: median",
    "objectives": "search: {method: tpe, trials: 8, startup: 4, objectives: [val_bag_auc, val_bag_nll, train_seconds]}",
    "oracle": "search: {method: tpe, trials: 8, startup: 4, metric: instance_auc, oracle: true}",
    "students": "search: {method: tpe, trials: 8, startup: 4, metric: val_distill_loss}",
}
LENGTH = 144


def searching(folder, kind):
    place = Place(folder)
    text = STUDENTS if kind == "students" else TEACHERS
    text = text.format(search=KINDS[kind], steps=LENGTH, digits=DIGITS.format(folder=digits()))
    (folder / "few.yaml").write_text(text)
    return place


def trials_of(place):
    return (read_document(StudyFolder(LocalStorage(place.root), "few")) or {"trials": []})["trials"]


def ended(place):
    """How many configurations of the searched stage have come to their end, whole or early."""
    results = place.root / "results"
    return len(
        {p.parent.parent for name in ("commit.json", "pruned-few.json") for p in results.glob(f"*/*/r001/{name}")}
    )


def kill(place, at, *words):
    """Start the search, and end its driver when so many configurations have come to their end."""
    driver = place.start(*words)
    place.until(lambda: ended(place) >= at, driver, f"{at} configurations")
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    end_session(driver)


@pytest.mark.parametrize("kind", [*KINDS])
def test_a_killed_search_goes_on(kind, tmp_path):
    place = searching(tmp_path, kind)
    kill(place, 3)
    before = trials_of(place)
    results = place.root / "results"
    kept = {
        p: p.stat().st_mtime_ns for name in ("commit.json", "pruned-few.json") for p in results.glob(f"*/*/*/{name}")
    }
    told = [t for t in before if t["state"] in ("complete", "pruned")]
    assert kept and len(told) < BUDGET  # a search that learns nothing has all its trials in the document from the start
    out = place.run()
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    after = trials_of(place)
    assert len(after) == BUDGET and [t["number"] for t in after] == [*range(BUDGET)]
    states = {t["state"] for t in after}
    assert states == {"complete"} if kind not in ("asha", "median") else states <= {"complete", "pruned"}
    same = ("number", "params", "config_id")
    for then, now in zip(before, after, strict=False):  # what was asked stays asked, what was told stays told
        assert {k: then[k] for k in same} == {k: now[k] for k in same}
        if then in told:
            assert (now["state"], now["values"]) == (then["state"], then["values"])
    rows = analysis.load("few", place.root)
    found = {config: list(mine["status"]) for config, mine in rows.groupby("config_id")}
    wanted = {"complete": ["done"] * 2, "pruned": ["pruned"] * 2}
    assert all(found[t["config_id"]] == wanted[t["state"]] for t in after)
    teachers = set(rows.loc[rows["stage"] == "teacher", "config_id"]) if kind == "students" else set()
    assert set(found) == {t["config_id"] for t in after} | teachers and len(teachers) == (kind == "students")
    mine, runs = place.children()
    assert sorted(run.data.tags["d2l.config_id"] for run in mine) == sorted(found)
    assert "RUNNING" not in {run.info.status for run in runs} and len(runs) == len(mine) + 1
    complete = [t for t in after if t["state"] == "complete"]
    if kind == "objectives":
        assert "The Pareto front" in out and all(len(t["values"]) == 3 for t in complete)
    else:
        choose = min if kind == "students" else max
        assert choose(complete, key=lambda t: t["values"][0])["trial_id"] in out
    assert ("ORACLE" in out) == (kind == "oracle")
    if kind in ("random", "asha", "students"):
        again = place.run()  # nothing is left: the same trials, and nothing trained
        assert trials_of(place) == after
        assert "nothing left to do" in again or "0 to go on with, 0 to ask" in again
    if kind == "oracle":
        marked_everywhere(place)


def marked_everywhere(place):
    """Every way in which the results can be shown says that true labels were looked at."""
    for out in ("table.md", "table.csv", "table.tex", "table.html"):
        assert analyse(["tables", "few", "--root", str(place.root), "--out", str(place.folder / out)]) == 0
        assert "oracle" in (place.folder / out).read_text().lower(), out
    assert analyse(["report", "few", "--root", str(place.root), "--out", str(place.folder / "report.html")]) == 0
    assert "ORACLE" in (place.folder / "report.html").read_text()


def test_one_at_a_time_a_killed_search_is_the_very_same(tmp_path):
    whole, cut = searching(tmp_path / "whole", "tpe"), searching(tmp_path / "cut", "tpe")
    whole.run("--max-concurrent", 1)
    for at in (2, 5):
        kill(cut, at, "--max-concurrent", 1)
    committed = {p: p.stat().st_mtime_ns for p in cut.committed()}
    cut.run("--max-concurrent", 1)
    assert all(p.stat().st_mtime_ns == at for p, at in committed.items())
    kept = ("number", "params", "config_id", "values", "state")
    first, second = ([{k: t[k] for k in kept} for t in trials_of(place)] for place in (whole, cut))
    assert first == second and len(first) == BUDGET and json.dumps(whole.rows()) == json.dumps(cut.rows())
