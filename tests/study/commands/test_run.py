"""The `run` command as a person uses it: real processes, real Ray, real MLflow, a real kill.

What does not depend on Ray is asked of the command in this process: Ray and the imports of a process take most of the
time of a study this small.
"""

import dataclasses
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from empty_store import copied_store
from few_digits import digits
from one_ray import answers
from process_sessions import end_ray_of, listening_beyond_loopback, session_members
from study_runs import children, command, run_here, steps_of
from whole_root import command as command_here

import analysis
from d2l_study import cli
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.studies import find_study

pytestmark = pytest.mark.ray

FEW = """
description: a study of a few seconds
data: {num_bags: 6, mean_bag_size: 3, test_bags: 50, root: DIGITS, verify: false}
teacher: {steps: 20, eval_every: 5, feature_width: 16, attention_width: 8}
methods:
  none: {}
  vat: {teacher: {lambda_adv: [0.5, 1.0]}}
replicates: 2
base_seed: 3
resources: {checkpoint_every: 5}
""".replace("DIGITS", str(digits()))
PACKED = """
description: arms that differ in numbers, at two n, one of which diverges
data: {num_bags: [6, 8], mean_bag_size: 3, test_bags: 50, root: DIGITS, verify: false}
teacher: {steps: 20, eval_every: 5, feature_width: 16, attention_width: 8}
methods:
  none: {}
  vat: {teacher: {lambda_adv: [0.5, 1.0]}}
  broken: {teacher: {lambda_adv: 1.0, learning_rate: 1.0e+30}}
replicates: 2
base_seed: 3
resources: {checkpoint_every: 5}
""".replace("DIGITS", str(digits()))
SEARCH = """
description: a search of a few seconds
data: {num_bags: 12, mean_bag_size: 3, test_bags: 50, root: DIGITS, verify: false}
teacher: {steps: 36, eval_every: 4, feature_width: 16, attention_width: 8}
methods:
  vat: {teacher: {lambda_adv: {low: 0.1, high: 3}, learning_rate: {low: 1e-6, high: 1e-2, log: true}}}
replicates: 2
base_seed: 3
search: {method: tpe, trials: 8, startup: 4}
schedule: asha
resources: {checkpoint_every: 4}
""".replace("DIGITS", str(digits()))
FACTS = ["config_id", "method", "num_bags", "replicate", "status", "cause", "best_step", "steps_run", "attempts"]
AREAS = ["bag_auc", "instance_auc", "val_bag_auc", "bag_nll"]
SPACES = {"few": FEW, "search": SEARCH, "packed": PACKED}
PACK = ("--set", "resources.pack=8")


@dataclasses.dataclass(frozen=True)
class Study:
    folder: Path
    out: str

    @property
    def rows(self):
        return analysis.load("few", self.folder / "runs")


def new_folder(tmp_path_factory, name, space):
    """With the space `few.yaml`, and a root that holds an empty MLflow store."""
    folder = tmp_path_factory.mktemp(name)
    (folder / "runs").mkdir()
    copied_store(folder / "runs", tmp_path_factory)
    (folder / "few.yaml").write_text(space)
    return folder


@pytest.fixture(scope="module")
def with_ray(tmp_path_factory):
    """The studies under one Ray, by name; its secret and that of a second; and the home folder of the process.

    One has a search, whose trials are ended in the order of their reports. One is packed and was limited before."""
    folders = {name: new_folder(tmp_path_factory, name, space) for name, space in SPACES.items()}
    limited = run_here(folders["packed"], "--limit", 3, *PACK)
    assert "16 runs: 0 there already, 6 to run now" in limited, limited
    counts = Study(folders["packed"], limited).rows["status"].value_counts().to_dict()
    assert counts == {"done": 6, "missing": 10}
    home = tmp_path_factory.mktemp("home")
    words = {"few": (), "search": ("--max-concurrent", 1), "packed": ("--max-concurrent", 1, *PACK)}
    asked = [["run", "--space", f"{folder}/few.yaml", "--root", f"{folder}/runs", *words[name]]
             for name, folder in folders.items()]  # fmt: skip
    found = answers(asked, home)
    for said, code in zip(found.said, (0, 0, 1), strict=True):
        assert said.code == code and "Traceback" not in said.text, said.text
    studies = {name: Study(folder, one.out) for (name, folder), one in zip(folders.items(), found.said, strict=True)}
    return studies, found.tokens, home


@pytest.fixture(scope="module")
def few(with_ray):
    study = with_ray[0]["few"]
    return study.folder, study.out


@pytest.fixture(scope="module")
def by_turns_and_packed(with_ray, tmp_path_factory):
    """The same study twice; the first here, by turns."""
    folder = new_folder(tmp_path_factory, "by-turns", PACKED)
    return Study(folder, run_here(folder, code=1)), with_ray[0]["packed"]


def numbers(folder, study):
    """What an undisturbed and a disturbed study must have in common."""
    rows = analysis.load(study, folder / "runs")
    kept = ["config_id", "method", "replicate", "status", "bag_auc", "instance_auc", "val_bag_auc", "best_step"]
    return rows[kept].to_dict("records")


def test_a_study_from_space_to_table(few):
    folder, out = few
    assert "3 trials × 2 replicates = 6 runs: 0 there already, 6 to run now" in out
    assert "| vat (lambda_adv=0.5) " in out and "| vat (lambda_adv=1) − none" in out
    assert "python -m analysis figure few" in out
    rows = analysis.load("few", folder / "runs")
    areas = rows.groupby(["method", "config_id"], sort=False)["val_bag_auc"].mean()
    weights = (folder / "runs/results").rglob("*.weights.safetensors")
    assert {path.parts[-3] for path in weights} == {best for _, best in areas.groupby("method").idxmax()}
    assert list(rows["status"]) == ["done"] * 6
    assert rows["bag_auc"].between(0, 1).all() and rows["made_by"].eq("few").all()
    mine, runs = children(folder, "few")
    assert len(mine) == 3 and len(runs) == 4
    assert {r.info.status for r in runs} == {"FINISHED"}
    by_id = {r.data.tags["d2l.config_id"]: r for r in mine}
    for config_id, group in rows.groupby("config_id"):
        assert by_id[config_id].data.metrics["bag_auc"] == pytest.approx(group["bag_auc"].mean())


def test_the_same_command_trains_nothing_and_more_replicates_only_the_new_ones(few):
    folder, first = few
    again = run_here(folder)
    assert "6 there already, 0 to run now" in again
    assert again[again.index("**") :] == first[first.index("**") :]
    before = {(r["config_id"], r["replicate"]): r for r in numbers(folder, "few")}
    more = run_here(folder, "--replicates", 3)
    assert "9 runs: 6 there already, 3 to run now" in more
    after = {(r["config_id"], r["replicate"]): r for r in numbers(folder, "few")}
    assert len(after) == 9 and all(after[key] == value for key, value in before.items())
    mine, runs = children(folder, "few")
    assert len(mine) == 3 and {r.info.status for r in runs} == {"FINISHED"}
    assert {r.data.tags["d2l.replicates"] for r in mine} == {"3 of 3"}


def test_a_tracking_server_that_is_away_does_not_keep_a_study_from_going_on(few):
    out = run_here(few[0], "--replicates", 3, "--tracking-uri", "http://127.0.0.1:9")
    assert "warning: tracking URI 'http://127.0.0.1:9'" in out and "connection refused" in out
    assert "the study goes on without it" in out and "warning: MLflow is not up to date" in out
    assert list(analysis.load("few", few[0] / "runs")["status"]) == ["done"] * 9


def test_another_study_reuses_runs_and_says_whose(few):
    folder, _ = few
    out = run_here(folder, "--study", "twin", "--replicates", 2)
    assert "0 to run now" in out and "twin: 6 runs reused, made by few (--fresh would train them again)" in out
    assert "reused" not in run_here(folder, "--study", "twin", "--replicates", 2)
    mine, _ = children(folder, "twin")
    assert {r.data.tags["d2l.reused_from"] for r in mine} == {"few"}


def test_a_changed_space_under_the_same_name_is_refused(few):
    folder, _ = few
    (folder / "changed").mkdir(exist_ok=True)
    (folder / "changed" / "few.yaml").write_text(FEW.replace("steps: 20", "steps: 25"))
    said = command_here(cli.main, "run", "--space", folder / "changed" / "few.yaml", "--root", folder / "runs")
    assert said.code == 2 and "steps: 20 -> 25" in said.err and "--study" in said.err


def test_a_killed_driver_loses_nothing_and_the_table_is_the_same(few, tmp_path, tmp_path_factory):
    whole, _ = few
    (tmp_path / "few.yaml").write_text(FEW)
    (tmp_path / "runs").mkdir()
    copied_store(tmp_path / "runs", tmp_path_factory)
    log = (tmp_path / "log").open("w")
    driver = subprocess.Popen(
        command("run", "--space", tmp_path / "few.yaml", "--root", tmp_path / "runs", "--max-concurrent", 1),
        stdout=log, stderr=log, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 200
    results = tmp_path / "runs" / "results"
    for first in ("*", "commit.json"):  # of a run that has begun, and of one that is done
        while not list(results.glob(f"*/*/*/{first}")):
            assert driver.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
        if first == "*":
            assert listening_beyond_loopback(session_members(driver.pid)) == []
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    end_ray_of(driver.pid)
    committed = {p: p.stat().st_mtime_ns for p in results.glob("*/*/*/commit.json")}
    assert 0 < len(committed) < 6
    copied_store(tmp_path / "runs", tmp_path_factory)  # as if the driver had been killed before it told MLflow
    out = run_here(tmp_path)
    assert f"{len(committed)} there already, {6 - len(committed)} to run now" in out
    assert all(p.stat().st_mtime_ns == at for p, at in committed.items())
    expected = [r for r in numbers(whole, "few") if r["replicate"] < 2]
    assert numbers(tmp_path, "few") == expected
    mine, runs = children(tmp_path, "few")
    assert len(mine) == 3 and {r.info.status for r in runs} == {"FINISHED"}
    for child in mine:
        for curve in ("curve/val_bag_auc", "curve/val_bag_auc/r000", "curve/val_bag_auc/r001"):
            assert steps_of(tmp_path, child, curve) == [5, 10, 15, 20], (child.info.run_name, curve)


def test_a_search_ends_trials_early_and_reports_the_best(with_ray):
    study = with_ray[0]["search"]

    def searched():
        return read_document(find_study("few", str(study.folder / "runs")))

    document = searched()
    states = [trial["state"] for trial in document["trials"]]
    assert len(states) == 8 and set(states) == {"complete", "pruned"}
    rows = study.rows.set_index("config_id")
    for trial in document["trials"]:
        wanted = "done" if trial["state"] == "complete" else "pruned"
        assert set(rows.loc[trial["config_id"], "status"]) == {wanted}
    complete = [t for t in document["trials"] if t["state"] == "complete"]
    best = max(complete, key=lambda t: t["values"][0])
    assert best["trial_id"] in study.out and f"{len(complete)} complete, {8 - len(complete)} ended early" in study.out
    mine, runs = children(study.folder, "few")
    assert len(mine) == 8 and "RUNNING" not in {r.info.status for r in runs}
    again = run_here(study.folder)  # nothing is left: the same trials, the same words
    assert searched() == document and "8 trials told, 0 to go on with, 0 to ask" in again


def test_a_packed_study_has_the_rows_and_ids_of_one_by_turns(by_turns_and_packed):
    alone, packed = by_turns_and_packed
    assert packed.rows[FACTS].to_dict("records") == alone.rows[FACTS].to_dict("records")
    for name in AREAS:
        assert packed.rows[name].to_numpy() == pytest.approx(alone.rows[name].to_numpy(), abs=2e-3, nan_ok=True)
    assert packed.rows.groupby("method")["status"].unique().map(list).to_dict() == {
        "none": ["done"], "vat": ["done"], "broken": ["failed"],
    }  # fmt: skip


def test_each_configuration_has_its_own_lines_and_page(by_turns_and_packed):
    assert all(
        f"] {label}: validation AUC" in by_turns_and_packed[0].out for label in ("none n=6", "vat n=8 lambda_adv=1")
    )
    assert all(f"] {label}: validation AUC" in by_turns_and_packed[1].out for label in ("vat n=8 lambda_adv=0.5",))
    for study in by_turns_and_packed:
        assert study.out.count(": 2 of 2 failed") == 2 and "4 runs failed:" in study.out
        mine, runs = children(study.folder, "few")
        states = {r.info.run_name: r.info.status for r in mine}
        assert len(states) == 8 and len(runs) == 9
        assert {name: state for name, state in states.items() if state == "FAILED"}.keys() == {
            name for name in states if name.startswith("broken")
        }
        for child in mine:
            if child.info.status == "FINISHED":
                for curve in ("curve/val_bag_auc", "curve/val_bag_auc/r000", "curve/bce/r001"):
                    assert steps_of(study.folder, child, curve) == [5, 10, 15, 20], (child.info.run_name, curve)
    pages = [
        {r.data.tags["d2l.config_id"]: r for r in children(study.folder, "few")[0]} for study in by_turns_and_packed
    ]
    for config, page in pages[0].items():
        other = pages[1][config]
        assert page.info.run_name == other.info.run_name and page.data.params == other.data.params
        assert page.data.metrics.keys() == other.data.metrics.keys()


def test_a_study_has_a_secret_of_its_own_that_is_written_nowhere_whatever_home_is(with_ray):
    studies, (first, second), home = with_ray
    assert len(first) == len(second) == 64 and first != second
    for place in (home, *(study.folder for study in studies.values())):
        files = [path for path in place.rglob("*") if path.is_file()]
        assert not any(token.encode() in path.read_bytes() for path in files for token in (first, second))
