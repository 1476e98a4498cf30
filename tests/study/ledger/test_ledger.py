"""The store: atomic puts, first commit wins, ids that depend on science only, rows of a study."""

import json
import threading

import pytest
from make_study import make_study

from d2l_study.data import MnistBags
from d2l_study.errors import DamagedError, UserError
from d2l_study.learning import TeacherConfig
from d2l_study.study.ledger import records
from d2l_study.study.ledger.ledger import Ledger, config_id
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder

ENTRY = {
    "config_id": "ab" * 10, "stage": "teacher", "method": "none", "values": {}, "varied": [], "replicates": [0],
}  # fmt: skip


@pytest.fixture
def storage(tmp_path):
    return LocalStorage(tmp_path / "root")


def test_a_put_replaces_and_a_first_put_stays(storage):
    storage.put("a/b", b"one")
    storage.put("a/b", b"two")
    assert storage.read("a/b") == b"two"
    assert not storage.put_if_absent("a/b", b"three")
    assert storage.read("a/b") == b"two"
    assert storage.list("a") == ["b"]  # no temporary file is left
    storage.delete("a/b")
    storage.delete("a/b")
    assert not storage.exists("a/b")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b")


def test_of_many_writers_exactly_one_commits(storage):
    ledger = Ledger(storage)
    barrier = threading.Barrier(8)
    won = []

    def write(i):
        barrier.wait()
        if ledger.commit("c" * 20, 3, {"status": "done", "bag_auc": i / 10}, {"curve.json": b"%d" % i}):
            won.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(won) == 1
    record = ledger.read("c" * 20, 3)
    assert record["row"]["bag_auc"] == won[0] / 10
    assert ledger.read_file("c" * 20, 3, "curve.json") == b"%d" % won[0]
    assert len(storage.list(Ledger.run_key("c" * 20, 3))) == 2  # the commit and the winner's file; nothing else


def test_a_run_without_a_commit_does_not_exist(storage):
    ledger = Ledger(storage)
    storage.put(f"{Ledger.run_key('d' * 20, 0)}/dead.predictions.parquet", b"half")
    assert ledger.read("d" * 20, 0) is None and not ledger.has("d" * 20, 0)


def test_checkpoints_are_kept_until_dropped(storage):
    ledger = Ledger(storage)
    assert ledger.load_checkpoint("e" * 20, 1) is None
    ledger.save_checkpoint("e" * 20, 1, b"state")
    assert ledger.load_checkpoint("e" * 20, 1) == b"state"
    ledger.drop_checkpoint("e" * 20, 1)
    assert ledger.load_checkpoint("e" * 20, 1) is None


def identity(data=None, teacher=None, checksum="x", seed=1):
    sections = {
        "data": MnistBags(**(data or {})).resolved().identity(),
        "teacher": TeacherConfig(**(teacher or {})).identity(),
    }
    return config_id("teacher", sections, checksum, seed)


def test_an_id_depends_on_the_science_only():
    assert identity() == identity({"val_bags": 50})  # the default of n = 100, written out
    assert identity() == identity({"root": "/elsewhere", "verify": False})  # the checksum speaks for the data
    assert identity() == identity(teacher={"epsilon": 7.0, "noise_rate": 0.5})  # they do nothing at weight 0
    different = [
        identity(), identity({"num_bags": 50}), identity(teacher={"lambda_adv": 1.0}), identity(checksum="y"),
        identity(seed=2), identity(teacher={"lambda_adv": 1.0, "epsilon": 7.0}),
        identity(teacher={"lambda_adv": 1.0, "direction": "power"}),
        identity(teacher={"lambda_adv": 1.0, "direction": "power", "xi": 0.5}),
    ]  # fmt: skip
    assert len(set(different)) == len(different)


def test_an_id_is_stable():
    # The ids of stored results: if this changes without a change of SCIENCE_VERSION, results are lost from sight.
    sections = {"data": {"num_bags": 50}, "teacher": {"steps": 10, "learning_rate": 5e-4}}
    assert config_id("teacher", sections, "b3fe36794a3a345d", 1) == "284760a9aef96999c26d"


def test_rows_join_plan_and_ledger(tmp_path):
    folder = make_study(tmp_path, replicates=3, missing=((0, 1),), failed=((1, 2),))
    rows = folder.rows()
    assert len(rows) == 12 * 3
    assert rows["status"].value_counts().to_dict() == {"done": 34, "missing": 1, "failed": 1}
    assert rows.loc[rows["status"] == "failed", "cause"].item() == "ValueError: made to fail"
    assert rows.loc[rows["status"] != "done", "bag_auc"].isna().all()
    assert list(rows.columns[:3]) == ["study", "config_id", "trial_id"]
    entry = folder.plan()[1]
    assert [row["status"] for row in folder.rows_of(entry)] == ["done", "done", "failed"]


def test_find_study_by_name_and_by_folder(tmp_path):
    make_study(tmp_path, name="grid", replicates=1)
    assert find_study("grid", str(tmp_path)).name == "grid"
    assert find_study(str(tmp_path / "studies" / "grid"), "elsewhere").name == "grid"
    with pytest.raises(UserError, match="did you mean 'grid'"):
        find_study("gird", str(tmp_path))
    with pytest.raises(UserError, match="there are no studies there"):
        find_study("grid", str(tmp_path / "empty"))


def test_an_unwritable_root_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--root .*file: this is a file"):
        LocalStorage(tmp_path / "file")
    with pytest.raises(UserError, match=r"--root .*below: cannot write there"):
        LocalStorage(tmp_path / "file" / "below").ensure_writable()


def test_a_plan_is_kept_as_it_was_written(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    assert not folder.exists()
    folder.write("description: x\n", {"space": {}}, [{**ENTRY, "config_id": "f" * 20}])
    assert folder.exists()
    assert json.loads((tmp_path / "studies/s/plan.json").read_text())["configurations"] == folder.plan()


def test_a_commit_that_is_another_runs_counts_as_damaged(tmp_path):
    ledger = Ledger(LocalStorage(tmp_path))
    for replicate in (0, 1):
        ledger.commit("c" * 20, replicate, {"status": "done", "bag_auc": 0.5 + replicate / 10}, {})
    first, second = (tmp_path / Ledger.run_key("c" * 20, r) / "commit.json" for r in (0, 1))
    first.write_bytes(second.read_bytes())
    assert ledger.read("c" * 20, 0) is None and list(ledger.damaged) == [str(first)]
    assert ledger.row("c" * 20, 1)["bag_auc"] == 0.6


def test_a_valid_commit_is_never_replaced_and_can_only_gain_weights(storage):
    ledger, config = Ledger(storage), "c" * 20
    assert ledger.commit(config, 0, {"status": "done", "bag_auc": 0.5, "made_by": "a"}, {"curve.json": b"1"}, "one")
    first = ledger.read(config, 0)
    row = {"status": "done", "bag_auc": 0.9, "made_by": "b"}
    assert not ledger.commit(config, 0, row, {"curve.json": b"2", WEIGHTS: b"w"}, "two")
    assert ledger.read(config, 0) == first and ledger.read_file(config, 0, "curve.json") == b"1"
    assert ledger.has_weights(config, 0) and ledger.read_file(config, 0, WEIGHTS) == b"w"
    assert not ledger.commit(config, 0, row, {"curve.json": b"3", WEIGHTS: b"v"}, "three")  # there are some
    assert not ledger.commit(config, 0, row, {"curve.json": b"4"}, "four")
    assert ledger.read_file(config, 0, WEIGHTS) == b"w"
    names = ["added-two.json", "commit.json", "one.curve.json", f"two.{WEIGHTS}"]
    assert storage.list(Ledger.run_key(config, 0)) == names  # what lost has left nothing behind


def test_weights_go_when_their_study_drops_them_unless_students_need_them(storage):
    ledger, config = Ledger(storage), "c" * 20
    for replicate in (0, 1):
        ledger.commit(config, replicate, {"status": "done", "made_by": "a"}, {WEIGHTS: b"w"}, "one")
    ledger.need_weights(config, 1, "students")
    ledger.drop_file(config, 0, WEIGHTS, "b")
    assert ledger.has_weights(config, 0)
    for replicate in (0, 1):
        ledger.drop_file(config, replicate, WEIGHTS, "a")
    assert not ledger.has_weights(config, 0) and ledger.has_weights(config, 1)
    assert ledger.needed_by(config, 1) == ["students"]
    assert not ledger.commit(config, 0, {"status": "done", "made_by": "b"}, {WEIGHTS: b"w2"}, "two")  # made again
    assert ledger.read_file(config, 0, WEIGHTS) == b"w2"


CRAFTED = ["../../../../outside", "/etc/passwd", "results/cc/{config}/r000/../r001/x.curve.json", "studies/s/plan.json",
           "results/cc/{config}/r000/commit.json", "", "\0"]  # fmt: skip


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("key", CRAFTED)
def test_a_crafted_commit_names_no_file_of_others(storage, key, version):
    ledger, config = Ledger(storage), "c" * 20
    outside = storage.root.parent / "outside"
    outside.write_text("theirs")
    ledger.commit(config, 0, {"status": "done"}, {WEIGHTS: b"w"}, "one")
    record = ledger.read(config, 0)
    record["files"][WEIGHTS]["key"] = key.format(config=config)
    data = records.encode(record) if version == 2 else json.dumps(record, indent=1).encode()
    storage.put(f"{Ledger.run_key(config, 0)}/commit.json", data)
    assert ledger.read(config, 0) is None and len(ledger.damaged) == 1
    ledger.drop_file(config, 0, WEIGHTS)
    with pytest.raises(FileNotFoundError):
        ledger.read_file(config, 0, WEIGHTS)
    assert outside.read_text() == "theirs" and storage.exists(f"{Ledger.run_key(config, 0)}/commit.json")


@pytest.mark.parametrize("key", ["", "/x", "../x", "a/../../x", "a//x", "a/./x", "a\0x", "a/.."])
def test_no_storage_reaches_beyond_its_root(storage, key):
    for use in (storage.read, storage.exists, storage.version, storage.delete, lambda k: storage.put(k, b"x"),
                lambda k: storage.put_if_absent(k, b"x")):  # fmt: skip
        with pytest.raises(DamagedError, match="not allowed as the name of an object"):
            use(key)


def test_a_crafted_plan_is_damaged(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    for wrong in ({"config_id": "../../x"}, {"replicates": ["0"]}, {"replicates": [-1]}, {"values": []}, {"stage": 3}):
        folder.write("", {}, [{**ENTRY, **wrong}])
        with pytest.raises(DamagedError, match="it has no configurations"):
            folder.plan()
