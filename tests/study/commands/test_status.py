"""`list` and `status`: which studies there are, and how far each is."""

import pytest
from make_study import make_study

from d2l_study import cli
from d2l_study.study.commands import stop
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.search_document import write_document


def test_list_shows_every_study_with_its_runs(tmp_path, capsys):
    make_study(tmp_path, name="one", replicates=2, num_bags=(50,), bag_sizes=(10,), failed=((0, 1),))
    make_study(tmp_path, name="two", replicates=1, num_bags=(50,), bag_sizes=(10,), missing=((0, 0),), seed=1)
    assert cli.main(["list", "--root", str(tmp_path)]) == 0
    one, two = capsys.readouterr().out.splitlines()
    assert one.startswith("one  3 of 4 runs, 1 failed") and "made for a test" in one
    assert two.startswith("two  1 of 2 runs") and "failed" not in two
    assert cli.main(["list", "--root", str(tmp_path / "none")]) == 0
    assert "no studies under" in capsys.readouterr().out


def test_status_says_what_is_left_who_is_at_work_and_what_failed(tmp_path, capsys):
    folder = make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,), failed=((0, 1),), missing=((1, 0),))
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "4 runs: 2 done, 1 failed, 1 missing" in out
    assert "nobody is at work on it; 1 runs are left" in out and "failed × 1: ValueError: made to fail" in out
    with lease(folder):
        cli.main(["status", "made", "--root", str(tmp_path)])
    assert "is at work on it" in capsys.readouterr().out
    assert cli.main(["status", "mode", "--root", str(tmp_path)]) == 2
    assert "did you mean 'made'" in capsys.readouterr().err


def test_status_counts_what_a_search_has_still_to_ask(tmp_path, capsys):
    folder = make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,), missing=((1, 0),))
    resolved = folder.resolved() | {"space": {"search": {"trials": 5}, "replicates": 2}}
    folder.write_document("resolved.json", resolved)
    searches = [{"distributions": {"teacher.epsilon": {}}}, {"distributions": {}}]  # the second is one trial
    write_document(folder, {"method": "tpe", "metrics": ["val_bag_auc"], "searches": searches}, [{}, {}])
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "its search has 4 trials still to ask for" in out and "9 runs are left" in out


@pytest.mark.parametrize(("space", "method"), [
    ({"search": None, "replicates": 2}, "tpe"),  # `run --extend` without the search
    (None, "tpe"),  # resolved.json is of another user, or was removed
    ({"search": {"method": "grid", "trials": 20}, "replicates": 2}, "grid"),  # its trials are the points of its lists
])  # fmt: skip
def test_status_and_stop_of_a_search_that_asks_for_nothing_more(tmp_path, capsys, monkeypatch, space, method):
    folder = make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,))
    folder.write_document("resolved.json", {} if space is None else {"space": space})
    definition = {
        "method": method,
        "metrics": ["val_bag_auc"],
        "searches": [{"distributions": {"teacher.epsilon": {}}}],
    }
    write_document(folder, definition, [{}, {}])
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "still to ask" not in said and "left" not in said
    monkeypatch.setattr(stop, "holder", lambda folder: {"pid": 1, "host": "here"})
    monkeypatch.setattr(stop, "ask_to_stop", lambda *driver: True)
    assert cli.main(["stop", "made", "--root", str(tmp_path)]) == 0
    assert "stopped, 4 of 4 runs done" in capsys.readouterr().out


def test_status_without_a_study_shows_all(tmp_path, capsys):
    make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,))
    assert cli.main(["status", "--root", str(tmp_path)]) == 0
    assert "4 of 4 runs" in capsys.readouterr().out


def test_a_study_whose_search_has_asked_for_nothing_yet_says_so(capsys, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), replicates=1)
    folder.write_plan([])
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "no trial has been begun yet" in said and "0 trials" not in said and "0 runs" not in said


def test_status_lists_the_trials_with_the_ids_that_run_takes(tmp_path, capsys):
    folder = make_study(tmp_path, replicates=2, num_bags=(50, 100), bag_sizes=(10,), missing=((0, 1), (3, 1)))
    plan = folder.plan()
    folder.write_plan([{**entry, "varied": ["num_bags", "lambda_adv", "epsilon"]} for entry in plan])
    folder.ledger.commit(plan[3]["config_id"], 1, {"status": "done"}, {WEIGHTS: b"a network"})
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [" ".join(line.split()) for line in lines if line.startswith("    ")]
    ids = [entry["config_id"][:10] for entry in plan]
    assert shown == [
        f"{ids[0]} none num_bags=50 1 of 2 runs", f"{ids[1]} none num_bags=100 2 of 2 runs",
        f"{ids[2]} vat num_bags=50 2 of 2 runs", f"{ids[3]} vat num_bags=100 2 of 2 runs, model stored",
    ]  # fmt: skip
    assert any("--run ID" in line for line in lines)


def test_many_trials_are_listed_when_they_are_asked_for(tmp_path, capsys):
    folder = make_study(tmp_path, replicates=1, num_bags=tuple(range(10, 80, 10)), bag_sizes=(10,))
    ids = [entry["config_id"][:10] for entry in folder.plan()]
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    few = capsys.readouterr().out
    assert "--list lists all 14 trials" in few and ids[0] not in few
    assert cli.main(["status", "made", "--list", "--root", str(tmp_path)]) == 0
    every = capsys.readouterr().out
    assert all(one in every for one in ids)
    assert cli.main(["status", "--list", "--root", str(tmp_path)]) == 2
    assert "name one" in capsys.readouterr().err
