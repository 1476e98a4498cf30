"""`search export`: a real search read back by Optuna, the states of trials, and files that are not replaced."""

from __future__ import annotations

import datetime
import json
import sqlite3

import optuna
import pytest
from make_space import load_text
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from study_runs import run

from d2l_study import cli
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.plan import Plan, make_plan
from d2l_study.study.search.fixed_search import write_fixed_search
from d2l_study.study.search.search import Search

SEARCH = """
description: a search of a few seconds
data: {num_bags: 12, mean_bag_size: 3, test_bags: 50}
teacher:
  {steps: 36, eval_every: 4, feature_width: 16, attention_width: 8, learning_rate: {low: 1e-6, high: 1e-2, log: true}}
methods:
  none: {teacher: {batch_bags: {low: 1, high: 3}}}
  vat: {teacher: {lambda_adv: {low: 0.1, high: 3}, pooling: {choices: [attention, gated_attention]}}}
replicates: 2
base_seed: 3
search: {method: tpe, trials: 5, startup: 4, enqueue: [{lambda_adv: 2, learning_rate: 5e-3}]}
schedule: asha
resources: {checkpoint_every: 4}
"""
DRAWS = """
description: draws
data: {num_bags: [50, 100]}
teacher: {steps: 900, learning_rate: {low: 1e-4, high: 1e-2, log: true}}
methods: {none: {}}
replicates: 2
search: {trials: 4, objectives: [val_bag_auc, train_seconds]}
"""
ROW = {"status": "done", "val_bag_auc": 0.75, "train_seconds": 20.0, "eval_seconds": 10.0}


def studies_of(storage):
    return {name: optuna.load_study(study_name=name, storage=storage)
            for name in optuna.get_all_study_names(storage)}  # fmt: skip


def journal(path):
    return studies_of(JournalStorage(JournalFileBackend(str(path))))


def export(root, study, path):
    return cli.main(["search", "export", study, "--root", str(root), "--storage", str(path)])


def without_trials_of_its_own(path):
    """A journal of somebody else."""
    optuna.create_study(storage=JournalStorage(JournalFileBackend(str(path))), study_name="mine")


@pytest.fixture
def committed(tmp_path):
    """The search `DRAWS` as a study, by whose runs the first trials of one search are complete, failed, begun, and the
    fourth is not begun."""
    space, folder = load_text(tmp_path, DRAWS, name="draws.yaml"), StudyFolder(LocalStorage(tmp_path / "runs"), "draws")
    plan = make_plan(space, "sum")
    folder.write(space.text, {"space": space.to_dict()}, plan.entries())
    write_fixed_search(space, folder, "sum")
    done, failed, begun, _ = (c.config_id for c in plan.configurations[:4])
    for replicate, minute in ((0, 10), (1, 12)):
        row = {**ROW, "train_seconds": 20.0 + replicate, "committed_at": f"2026-11-01T08:{minute}:00+00:00"}
        folder.ledger.commit(done, replicate, row, {})
        folder.write_failure(failed, replicate, {"cause": "lost", "log": "", "at": "2026-11-01T09:00:00+00:00"})
    folder.ledger.commit(begun, 0, {**ROW, "committed_at": "2026-11-01T10:00:00+00:00"}, {})
    return folder


@pytest.mark.soak
@pytest.mark.ray
def test_a_real_search_is_read_back_by_optuna_as_it_was(tmp_path):
    (tmp_path / "few.yaml").write_text(SEARCH)
    run(tmp_path)
    folder = find_study("few", str(tmp_path / "runs"))
    document = read_document(folder)
    assert export(tmp_path / "runs", "few", tmp_path / "journal.log") == 0
    assert export(tmp_path / "runs", "few", f"sqlite:///{tmp_path / 'x.db'}") == 0
    database = RDBStorage(f"sqlite:///{tmp_path / 'x.db'}")
    for found in (journal(tmp_path / "journal.log"), studies_of(database)):
        assert list(found) == ["few: none", "few: vat"]
        for number, study in enumerate(found.values()):
            stored = [t for t in document["trials"] if t["search"] == number]
            assert len(study.trials) == len(stored) == 5
            assert study.metric_names == ["val_bag_auc"] and study.direction.name == "MAXIMIZE"
            assert study.user_attrs["arm"] == document["definition"]["searches"][number]["arm"]
            for trial, one in zip(study.trials, stored, strict=True):
                assert trial.params == one["params"] and trial.values == one["values"]
                assert trial.state.name.lower() == one["state"]
                assert trial.intermediate_values == (dict([one["partial"]]) if one["partial"] else {})
                assert trial.user_attrs["trial_id"] == one["trial_id"] and trial.user_attrs["replicates"] == 2
                assert trial.user_attrs.get("cause") == one["cause"]
                assert trial.user_attrs.get("start_point", False) == (one["trial"] == 0)
                assert datetime.timedelta(0) <= trial.duration < datetime.timedelta(minutes=5)
        ways = found["few: vat"].trials[0].distributions
        assert ways["teacher.learning_rate"] == optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True)
        assert ways["teacher.pooling"].choices == ("attention", "gated_attention")
        ways = found["few: none"].trials[0].distributions
        assert ways["teacher.batch_bags"] == optuna.distributions.IntDistribution(1, 3)
        assert found["few: vat"].trials[0].params["teacher.lambda_adv"] == 2.0
        best = max((t for t in document["trials"] if t["state"] == "complete" and t["search"] == 0),
                   key=lambda trial: trial["values"])  # fmt: skip
        assert found["few: none"].best_trial.user_attrs["trial_id"] == best["trial_id"]
    assert {t["state"] for t in document["trials"]} == {"complete", "pruned"}
    database.engine.dispose()


def test_states_times_and_several_metrics_of_draws(committed, tmp_path, capsys):
    assert export(tmp_path / "runs", "draws", tmp_path / "j.log") == 0
    out = capsys.readouterr().out
    assert "draws: none num_bags=50: 1 complete, 1 fail, 1 running, 1 waiting" in out
    found = journal(tmp_path / "j.log")
    assert list(found) == ["draws: none num_bags=50", "draws: none num_bags=100"]
    study = found["draws: none num_bags=50"]
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["val_bag_auc", "train_seconds"]
    done, failed, begun, waiting = study.trials
    assert done.values == [0.75, 20.5]  # means over replicates, though `search.json` was written before they were there
    at = datetime.datetime(2026, 11, 1, 8, 12, tzinfo=datetime.UTC).astimezone().replace(tzinfo=None)
    assert done.datetime_complete == at and done.duration == datetime.timedelta(minutes=2, seconds=30)
    assert failed.state.name == "FAIL" and failed.user_attrs["cause"].startswith("r000: lost") and failed.values is None
    assert begun.state.name == "RUNNING" and begun.datetime_complete is None
    assert waiting.state.name == "WAITING" and waiting.datetime_start is None
    assert waiting.system_attrs["fixed_params"] == waiting.params
    assert {t.state.name for t in found["draws: none num_bags=100"].trials} == {"WAITING"}


def test_trials_that_a_sampler_has_asked_for_are_running(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path / "runs"), "s")
    space = load_text(tmp_path, SEARCH, name="s.yaml")
    search = Search(space, folder, "sum")
    for _ in range(3):
        search.ask()
    folder.write(space.text, {"space": space.to_dict()}, Plan(search.configurations, 2).entries())
    assert export(tmp_path / "runs", "s", tmp_path / "j.log") == 0
    found = journal(tmp_path / "j.log")
    assert [[t.state.name for t in study.trials] for study in found.values()] == [["RUNNING"] * 2, ["RUNNING"]]
    assert [t.params for t in found["s: none"].trials] == [t.params for t in search.trials if t.arm == "none"]


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_a_file_of_an_earlier_export_is_replaced_whole(committed, tmp_path, kind):
    path = tmp_path / "a b%3f?.file"
    storage = path if kind == "journal" else f"sqlite:///{path}"
    path.touch()  # an empty file holds nothing that could be lost
    assert export(tmp_path / "runs", "draws", storage) == 0
    before = path.read_bytes()
    row = {**ROW, "committed_at": "2026-11-01T10:00:00+00:00"}
    committed.ledger.commit(committed.plan()[2]["config_id"], 1, row, {})
    assert export(tmp_path / "runs", "draws", storage) == 0
    assert path.read_bytes() != before and {p.name for p in tmp_path.iterdir()} == {path.name, "runs", "draws.yaml"}
    if kind == "journal":
        states = [t.state.name for t in journal(path)["draws: none num_bags=50"].trials]
        assert states == ["COMPLETE", "FAIL", "COMPLETE", "WAITING"]


def test_what_is_not_ours_is_refused_and_stays(committed, tmp_path, capsys):
    (tmp_path / "notes.log").write_text("my notes\n")
    (tmp_path / "lines.log").write_text(json.dumps({"op_code": 77}, separators=(",", ":")) + "\nx\ny\n")
    without_trials_of_its_own(tmp_path / "theirs.log")
    assert export(tmp_path / "runs", "draws", tmp_path / "mixed.log") == 0
    without_trials_of_its_own(tmp_path / "mixed.log")  # somebody has added a study to an export
    with sqlite3.connect(tmp_path / "their.db") as connection:
        connection.execute("CREATE TABLE patients (id INTEGER)")
    RDBStorage(f"sqlite:///{tmp_path / 'study.db'}").engine.dispose()
    optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}", study_name="mine")
    names = ["notes.log", "lines.log", "theirs.log", "mixed.log"]
    storages = [*(str(tmp_path / name) for name in names), f"sqlite:///{tmp_path}/their.db",
                f"sqlite:///{tmp_path}/study.db", f"sqlite:///{tmp_path}/notes.log"]  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    capsys.readouterr()
    for storage in storages:
        assert export(tmp_path / "runs", "draws", storage) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and storage in said and "not replaced" in said
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_mistakes_are_answered_in_a_line(committed, tmp_path, capsys):
    space, folder = load_text(tmp_path), StudyFolder(LocalStorage(tmp_path / "runs"), "mine")
    folder.write(space.text, {"space": space.to_dict()}, make_plan(space, "sum").entries())
    wrong = [
        ("mine", tmp_path / "j.log", "study 'mine' has no search"),
        ("drawn", tmp_path / "j.log", "did you mean 'draws'"),
        ("draws", tmp_path, "a folder"),
        ("draws", tmp_path / "no" / "j.log", "there is no folder"),
        ("draws", "mysql://u:secret@host/db", "sqlite:///FILE"),
        ("draws", "sqlite:///", "an empty path"),
        ("draws", "/dev/null", "not replaced"),
    ]
    for study, storage, words in wrong:
        assert export(tmp_path / "runs", study, storage) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and words in said and "secret" not in said
    for given, words in ((["search"], "COMMAND is missing"), (["search", "exprot", "draws"], "did you mean 'export'"),
                         (["search", "export", "draws"], "--storage")):  # fmt: skip
        assert cli.main(given) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and words in said
