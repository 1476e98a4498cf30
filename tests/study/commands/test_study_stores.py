"""The MLflow stores that a study was written to: `prune`, `remove` and `sync` find them again, and forget none whose
pages may be there still."""

import shutil

import pytest
from make_study import make_study
from mlflow_runs import runs_of

from d2l_study import cli
from d2l_study.credentials import masked
from d2l_study.errors import DamagedWarning
from d2l_study.study.ledger import records
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.removals import Removal, add_removal, known_here, read_removal
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.address import client, sqlite_uri
from d2l_study.study.mlflow.study_stores import keep_store, kept_stores, stores_of, unusable_text

AWAY = "http://127.0.0.1:9"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make_study(tmp_path / "root", num_bags=(50,), bag_sizes=(10,), replicates=1)


@pytest.fixture
def command(folder, capsys):
    """Gives a command about the study; returns its exit code and what it said."""

    def given(name, *words):
        capsys.readouterr()
        code = cli.main([name, folder.name, "--root", str(folder.storage.root), *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return given


@pytest.fixture
def other(command, tmp_path):
    """Another store than the root's own, to which the study was written."""
    (tmp_path / "elsewhere").mkdir()
    uri = sqlite_uri(tmp_path / "elsewhere" / "other.db")
    assert command("sync", "--tracking-uri", uri)[0] == 0
    return uri


def methods(uri):
    """The arms with a page in a store; None if the study's experiment was deleted, or never made."""
    found = client(uri).get_experiment_by_name("made")
    if found is None or found.lifecycle_stage == "deleted":
        return None
    return sorted(run.data.params["method"] for runs in runs_of(uri)[1].values() for run in runs)


def test_prune_remove_and_sync_need_not_be_told_the_store_again(folder, command, other):
    code, said = command("prune", "--arm", "vat")
    assert code == 0 and "MLflow: 1 run deleted" in said and methods(other) == ["none"]
    code, said = command("sync")
    assert code == 0 and "1 right already" in said and other in said
    code, said = command("remove", "--yes")
    assert code == 0 and f"2 runs of made deleted ({other})" in said and methods(other) is None
    assert command("sync")[0] == 2 and read_removal(folder.storage, "made") is None
    assert not (folder.storage.root / "mlflow.db").exists()


def test_every_store_of_a_study_follows_and_one_that_is_gone_is_named(folder, command, other, uri, tmp_path):
    assert command("sync", "--tracking-uri", uri)[0] == 0
    code, said = command("prune", "--arm", "vat", "--tracking-uri", uri)
    assert methods(uri) == ["none"] and methods(other) == ["none", "vat"]
    assert f"made was written to {other} as well" in said and f"--tracking-uri {other}" in said
    moved = shutil.move(tmp_path / "elsewhere" / "other.db", tmp_path / "elsewhere" / "moved.db")
    code, said = command("remove", "--yes")
    assert code == 0 and f"2 runs of made deleted ({uri})" in said and methods(uri) is None
    assert "nothing deleted: there is no store" in said and "other.db" in said
    code, said = command("sync")
    assert code == 1 and "there is no store" in said
    shutil.move(moved, tmp_path / "elsewhere" / "other.db")
    code, said = command("sync")
    assert code == 0 and "3 runs of made deleted" in said and methods(other) is None
    assert read_removal(folder.storage, "made") is None


def test_a_study_that_is_in_no_store_found_is_remembered(folder, command, uri):
    """One of an earlier version, which kept no stores."""
    code, said = command("prune", "--arm", "vat")
    assert code == 0 and "not updated: there is no store" in said and "sync made" in said
    code, said = command("remove", "--yes")
    assert code == 0 and "there is no store" in said and "--tracking-uri URI" in said
    code, said = command("sync", "--tracking-uri", uri)  # neither is it in that one
    assert code == 1 and f"nothing of made is in {uri}" in said and read_removal(folder.storage, "made") is not None


def test_the_pages_of_a_removed_study_can_be_deleted_after_its_results(folder, command, other, uri):
    (folder.storage.root / "studies" / "made" / "stores.json").unlink()  # as of an earlier version
    assert command("remove", "--yes", "--tracking-uri", uri)[0] == 0
    shutil.rmtree(folder.storage.root / "results")  # by `gc --delete`
    again = make_study(folder.storage.root, num_bags=(60,), bag_sizes=(10,), replicates=1)
    assert command("sync", "--tracking-uri", other)[0] == 0  # the same name: it is no study of another root
    assert runs_of(other)[1].keys() == again.planned()
    assert command("remove", "--yes")[0] == 0 and methods(other) is None


def test_a_store_that_is_away_is_where_a_removed_study_is_looked_for_later(folder, command, other):
    keep_store(folder, AWAY)
    code, said = command("sync")
    assert code == 2 and AWAY in said and "last written there" in said and "--tracking-uri" in said
    code, said = command("remove", "--yes")
    assert code == 0 and "warning: " in said and methods(other) is None
    assert read_removal(folder.storage, "made").stores == (AWAY,)
    assert command("sync")[0] == 1


def test_what_is_secret_in_an_address_is_not_kept(folder, command):
    secret = "http://me:verysecret@127.0.0.1:9"
    keep_store(folder, secret)
    kept = (folder.storage.root / "studies" / "made" / "stores.json").read_text()
    assert "verysecret" not in kept and kept_stores(folder) == [masked(secret)]
    code, said = command("sync")
    assert code == 2 and "what is secret in that address is not kept" in said
    code, said = command("prune", "--arm", "vat")
    assert code == 0 and "not updated: what is secret" in said
    code, said = command("remove", "--yes")
    assert code == 0 and "what is secret" in said and read_removal(folder.storage, "made").stores == (masked(secret),)


def test_a_copied_root_has_the_store_below_it(folder, tmp_path):
    keep_store(folder, sqlite_uri(folder.storage.root / "mlflow.db"))
    keep_store(folder, sqlite_uri(tmp_path / "shared.db"))
    keep_store(folder, sqlite_uri(folder.storage.root / "own" / "s.db"))
    shutil.copytree(folder.storage.root, tmp_path / "copy")
    copied = StudyFolder(LocalStorage(tmp_path / "copy"), "made")
    places = [tmp_path / "copy" / "own" / "s.db", tmp_path / "shared.db", tmp_path / "copy" / "mlflow.db"]
    assert stores_of(None, copied.storage.root, kept_stores(copied)) == [sqlite_uri(place) for place in places]


def test_a_store_is_kept_once_the_last_one_last(folder, tmp_path):
    for uri in (AWAY, "http://b:1", AWAY):
        keep_store(folder, uri)
    assert kept_stores(folder) == ["http://b:1", AWAY]
    assert unusable_text(AWAY) is None and "no store" in unusable_text(sqlite_uri(tmp_path / "none.db"))


def test_the_environments_store_comes_before_those_that_are_kept(folder, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:1")
    assert stores_of(None, folder.storage.root, [AWAY]) == ["http://mine:1"]
    assert stores_of("http://given:1", folder.storage.root, [AWAY]) == ["http://given:1"]


def test_records_that_are_damaged_say_nothing(folder):
    keep_store(folder, AWAY)
    add_removal(folder.storage, "gone", [AWAY], ["c1"])
    assert known_here(folder.storage, "gone")("c1") and not known_here(folder.storage, "gone")("c2")
    for name in ("studies/made/stores.json", "removed/gone.json"):
        path = folder.storage.root / name
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(DamagedWarning, match=r"stores\.json"):
        assert kept_stores(folder) == []
    with pytest.warns(DamagedWarning, match=r"gone\.json"):
        assert read_removal(folder.storage, "gone") == Removal()
    folder.storage.put("removed/old.json", records.encode({"study": "old"}))  # of an earlier version
    assert read_removal(folder.storage, "old") == Removal()
