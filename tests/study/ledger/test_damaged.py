"""Files of a root that are not what was written: named, never a traceback, and never taken for a result."""

import pytest
from make_study import make_study

import analysis
from analysis.cli import main as analysis_main
from d2l_study import cli
from d2l_study.errors import DamagedError, DamagedWarning, UserError
from d2l_study.study.ledger import records
from d2l_study.study.ledger.ledger import DAMAGED_COMMIT
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.search_document import DOCUMENT, read_document
from d2l_study.study.mlflow.study_page import study_page

RUBBISH = ["", "garbage", "[]", "{", "\0\0\0\0", '{"row": 3}', '{"row": {}, "files": {}}']


@pytest.fixture
def made(tmp_path):
    return make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,), with_predictions=True)


def path_of(folder, name):
    return folder.storage.path(f"{folder.key}/{name}")


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_damaged_commit_is_no_result_and_the_next_one_wins(made, rubbish, tmp_path, capsys):
    config, ledger = made.plan()[0]["config_id"], made.ledger
    good = ledger.read(config, 0)
    path = made.storage.path(f"{ledger.run_key(config, 0)}/commit.json")
    path.write_text(rubbish)
    assert ledger.read(config, 0) is None and not ledger.has(config, 0) and not ledger.has_result(config, 0, True)
    assert cli.main(["status", "made", "--root", str(made.storage.root)]) == 0
    out, err = capsys.readouterr()
    assert "3 done, 1 missing" in out and err.splitlines() == [f"warning: {path} is damaged: {DAMAGED_COMMIT}"]
    for words in (["tables", "made"], ["export", "made", "--out", str(tmp_path / "rows.csv")]):
        assert analysis_main([*words, "--root", str(made.storage.root)]) == 0
        assert capsys.readouterr().err.splitlines() == [f"warning: {path} is damaged: {DAMAGED_COMMIT}"]
    assert list(analysis.load("made", made.storage.root)["status"]).count("missing") == 1
    assert ledger.commit(config, 0, good["row"], {"a": b"1"}, attempt="again")
    assert ledger.read(config, 0)["attempt"] == "again" and ledger.read_file(config, 0, "a") == b"1"
    assert path.read_text() == rubbish and path.with_name("commit-2.json").exists()
    assert cli.main(["status", "made", "--root", str(made.storage.root)]) == 0
    assert "4 done" in (said := capsys.readouterr()).out and not said.err  # it is made good
    assert not ledger.commit(config, 0, good["row"], {}, attempt="third")  # now there is a valid one


def test_data_that_is_not_what_was_committed_is_refused(made):
    config, ledger = made.plan()[0]["config_id"], made.ledger
    path = made.storage.path(ledger.read(config, 0)["files"]["predictions.parquet"]["key"])
    data = path.read_bytes()
    for wrong in (
        b"",
        data[:-1],
        data[:50] + b"\x01" + data[51:] if data[50] != 1 else data[:50] + b"\x02" + data[51:],
    ):
        path.write_bytes(wrong)
        with pytest.raises(DamagedError, match="damaged") as caught:
            ledger.read_file(config, 0, "predictions.parquet")
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        with pytest.raises(UserError, match="damaged"):
            analysis.load_predictions("made", made.storage.root)


@pytest.mark.parametrize("name", ["plan.json", "resolved.json"])
@pytest.mark.parametrize("rubbish", ["", "garbage", "[]"])
def test_a_damaged_study_is_named_and_the_others_are_listed(made, name, rubbish, tmp_path, capsys):
    make_study(tmp_path, name="other", replicates=1, num_bags=(50,), bag_sizes=(10,), seed=1)
    path_of(made, name).write_text(rubbish)
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "4 done" in said.out
    assert said.err == f"warning: {path_of(made, name)} is damaged: its copy in copies/ is taken\n"
    path_of(made, f"copies/{name}").write_text(rubbish)
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path_of(made, name)}: damaged") and len(said.splitlines()) == 1
    assert cli.main(["list", "--root", str(tmp_path)]) == 0
    one, two = capsys.readouterr().out.splitlines()
    assert one.startswith("made   cannot be read: ") and str(path_of(made, name)) in one
    assert two.startswith("other  2 of 2 runs")


def test_a_plan_or_search_without_its_parts_is_damaged(made):
    made.write_document("plan.json", {})
    with pytest.raises(DamagedError, match=r"plan\.json: damaged, it has no configurations"):
        made.plan()
    assert read_document(made) is None
    for rubbish in ({}, {"definition": {}}, {"definition": {"metrics": []}, "trials": []}):
        made.write_document(DOCUMENT, rubbish)
        with pytest.raises(DamagedError, match=r"search\.json: damaged"):
            read_document(made)


def test_what_was_removed_as_told_is_missed_by_no_command(made, tmp_path, capsys):
    for name in ("resolved.json", "space.yaml"):
        path_of(made, name).unlink()
        path_of(made, f"copies/{name}").unlink()
    for words in (["list"], ["status", "made"]):
        assert cli.main([*words, "--root", str(tmp_path)]) == 0, capsys.readouterr().err
    page = study_page(made)
    assert page.artifacts == {} and page.params["configurations"] == 2


def test_the_copy_of_a_space_that_was_changed_is_taken_with_a_warning(made):
    text = made.space_text()
    path_of(made, "space.yaml").write_bytes(text + b"\n# edited")
    with pytest.warns(DamagedWarning, match="space.yaml is not the space that was run: its copy in copies/ is taken"):
        assert made.space_text() == text
    path_of(made, "copies/space.yaml").write_bytes(b"{")
    with pytest.raises(DamagedError, match="it is not the space that was run; the study's `run` command makes it anew"):
        made.space_text()


def test_small_records_that_are_damaged_cost_nothing_more(made):
    config = made.plan()[0]["config_id"]
    made.write_failure(config, 5, {"cause": "x", "log": "y"})
    made.write_lost_attempt(config, 5, {"cause": "x"})
    for name in ("failures", "attempts"):
        (path,) = path_of(made, name).iterdir()
        path.write_text("garbage")
    assert made.failure(config, 5)["cause"].startswith("not known: ") and made.lost_attempts(config, 5) == []
    made.write_lost_attempt(config, 5, {"cause": "z"})
    assert made.lost_attempts(config, 5) == [{"cause": "z"}]
    made.ledger.write_pruned(config, 5, "made", {"cause": "x"})
    made.storage.path(f"{made.ledger.run_key(config, 5)}/pruned-made.json").write_text("")
    assert made.ledger.pruned(config, 5, "made") is None


def test_a_damaged_configuration_is_named_and_written_again_by_who_trains_it(made):
    config, ledger = made.plan()[0]["config_id"], made.ledger
    ledger.write_config(config, {"stage": "teacher"})
    path = made.storage.path(f"{ledger.config_key(config)}/config.json")
    before = path.read_text()
    path.write_text("garbage")
    with pytest.raises(DamagedError, match=r"config\.json: damaged"):
        ledger.read_config(config)
    ledger.write_config(config, records.decode(before.encode()))
    assert path.read_text() == before


@pytest.mark.parametrize("root", ["", "  ", "a\0b"])
def test_an_empty_root_is_refused(root):
    with pytest.raises(UserError, match="--root"):
        open_storage(root)


def test_a_file_or_a_folder_in_the_wrong_place_is_told_without_a_traceback(made, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for words in (["list"], ["status", "made"], ["trial", "--id", "a"]):
        assert cli.main([*words, "--root", str(tmp_path / "file")]) == 2
        assert "this is a file; expected a folder" in capsys.readouterr().err
    for name in ("plan.json", "copies/plan.json"):
        path_of(made, name).unlink()
        path_of(made, name).mkdir()
    assert cli.main(["status", "made", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path_of(made, 'plan.json')}: damaged") and "makes it anew" in said


@pytest.mark.parametrize("text", ['{"definition": {"metr', "{}", '{"definition": {}, "trials": []}', "[]"])
def test_a_damaged_search_document_is_named_by_whoever_reads_the_rows(tmp_path, text, capsys):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2)
    for name in (DOCUMENT, f"copies/{DOCUMENT}"):
        folder.storage.put(f"{folder.key}/{name}", text.encode())
    with pytest.raises(DamagedError, match=r"search\.json: damaged.*its runs are safe"):
        analysis.load("made", tmp_path)
    assert analysis_main(["tables", "made", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{DOCUMENT}: damaged" in said and "Traceback" not in said
