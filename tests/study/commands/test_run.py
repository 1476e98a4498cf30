"""The `run` command as a person uses it: real processes, real Ray, real MLflow, a real kill.

What does not depend on Ray is asked of the command in this process: Ray and the imports of a process take most of the
time of a study this small.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from empty_store import copied_store
from few_digits import digits
from whole_root import command as command_here
from whole_root import without_ray

import analysis
from d2l_study import cli

pytestmark = pytest.mark.ray

SPACE = """
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


def command(*arguments):
    return [sys.executable, "-m", "d2l_study", *map(str, arguments)]


def run(folder, *arguments, space="few.yaml", code=0):
    done = subprocess.run(
        command("run", "--space", folder / space, "--root", folder / "runs", *arguments),
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def run_here(folder, *arguments, space="few.yaml", code=0):
    """The same in this process, its trials too."""
    with without_ray():
        said = command_here(cli.main, "run", "--space", folder / space, "--root", folder / "runs", *arguments)
    assert said.code == code, said.text
    assert "Traceback" not in said.text
    return said.out


def children(folder, study):
    """The child runs of a study, asked of MLflow itself."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id])
    return [r for r in runs if "mlflow.parentRunId" in r.data.tags], runs


def steps_of(folder, child, metric):
    from mlflow import MlflowClient

    history = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db").get_metric_history(child.info.run_id, metric)
    return sorted({point.step for point in history})


def numbers(folder, study):
    """What an undisturbed and a disturbed study must have in common."""
    rows = analysis.load(study, folder / "runs")
    kept = ["config_id", "method", "replicate", "status", "bag_auc", "instance_auc", "val_bag_auc", "best_step"]
    return rows[kept].to_dict("records")


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    folder = tmp_path_factory.mktemp("few")
    (folder / "few.yaml").write_text(SPACE)
    return folder, run(folder)


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
    (folder / "changed" / "few.yaml").write_text(SPACE.replace("steps: 20", "steps: 25"))
    said = command_here(cli.main, "run", "--space", folder / "changed" / "few.yaml", "--root", folder / "runs")
    assert said.code == 2 and "steps: 20 -> 25" in said.err and "--study" in said.err


def test_a_killed_driver_loses_nothing_and_the_table_is_the_same(few, tmp_path, tmp_path_factory):
    whole, _ = few
    (tmp_path / "few.yaml").write_text(SPACE)
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


def end_ray_of(session):
    """Ray's own processes outlive a killed driver for a while: wait for them, or end those of its session."""
    deadline = time.monotonic() + 5
    while members := session_members(session):
        if time.monotonic() > deadline:
            for pid in members:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
"""127.0.0.1, the same mapped into IPv6, and ::1, as /proc/net writes them."""


def listening_beyond_loopback(pids):
    """Listening TCP sockets of these processes at other addresses than loopback."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found, seen = [], 0
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                seen += 1
                if fields[1].rpartition(":")[0] not in LOOPBACK:
                    found.append(fields[1])
    assert seen >= 5  # Ray does listen
    return found


def session_members(session):
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--space", "vat_quik"], ["--space vat_quik", "did you mean 'vat_quick'"]),
        (["run", "--spce", "smoke"], ["unknown option --spce", "--space"]),
        (["rum"], ["unknown command 'rum'", "did you mean 'run'"]),
        (["plan", "--space", "smoke", "--set", "num_bags=1"], ["data.num_bags: 1", "≥ 2"]),
        (["plan", "--space", "smoke", "--set", "data.mean_bag_size=0.5"], ["data.mean_bag_size: 0.5", "≥ 1"]),
        (["plan", "--space", "smoke", "--set", "lambda_adv=-1"], ["lambda_adv", "-1", "≥ 0"]),
        (["plan", "--space", "smoke", "--set", "teacher.epsilon=[]"], ["teacher.epsilon", "empty"]),
        (["plan", "--space", "smoke", "--replicates", "0"], ["--replicates", "'0'"]),
        (["run", "--space", "smoke", "--study", "a/b"], ["--study 'a/b'"]),
        (["run", "--space", "smoke", "--study", ""], ["--study ''"]),
        (["run", "--space", "smoke", "--study", "a" * 300], ["--study", "at most 100"]),
        (["run", "--space", "smoke", "--set", "resources.cpus=1000"], ["asks for 1000 CPUs"]),
        (["run", "--space", "smoke", "--set", "resources.gpus=64"], ["64 GPUs"]),
        (["plan", "--space", "smoke", "--root", "/proc/version"], ["--root /proc/version", "a file"]),
        (["run", "--space", "smoke", "--tracking-uri", ""], ["--tracking-uri", "empty"]),
        (["run", "--space", "smoke", "--tracking-uri", "sqlite:////nowhere/x.db"], ["no folder /nowhere"]),
        (["run", "--space", "smoke", "--root", "/proc/nothing"], ["--root /proc/nothing", "cannot write"]),
        (["run", "--space", "smoke", "--tracking-uri", "http://127.0.0.1:9"], ["http://127.0.0.1:9", "refused"]),
        (["run", "--space", "smoke", "--address", "127.0.0.1:9"], ["--address 127.0.0.1:9", "no Ray cluster"]),
        (["plan", "--space", "smoke", "--set", "data.root=/nowhere"], ["data.root", "/nowhere"]),
        (["data", "--mnist", "/nowhere"], ["/nowhere", "not a folder"]),
        (["ui", "--port", "99999"], ["--port", "99999"]),
        (["run", "--space", "smoke", "--root", ""], ["--root: an empty path"]),
        (["run", "--space", "smoke", "--study", "two\nlines"], ["--study 'two\\nlines'", "invisible"]),
    ],
)
def test_wrong_commands_are_answered_in_a_line_or_two(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert all(word in captured.err for word in words), captured.err
    assert captured.err.startswith("error: ") and len(captured.err.strip().splitlines()) <= 2
    assert not list(tmp_path.glob("runs/studies/*"))


def test_help_and_spaces_need_nothing_heavy(tmp_path):
    code = (
        "import sys; from d2l_study import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "cli.main(['spaces'])\n"
        "print(sorted({'ray', 'torch', 'mlflow', 'optuna', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
    assert "vat_quick" in done.stdout
