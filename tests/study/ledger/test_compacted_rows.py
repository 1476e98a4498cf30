"""The compacted rows of a study are taken while they are what the ledger says, and no moment longer."""

from __future__ import annotations

import io
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from d2l_study.study.ledger import compacted_rows, records
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder

CONFIGS = ("a" * 20, "b" * 20)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """Two configurations of three runs: of the first all are done, of the second one is done, one failed, one
    missing."""
    made = StudyFolder(LocalStorage(tmp_path), "made")
    both = {"stage": "teacher", "method": "none", "varied": ["num_bags"], "replicates": [0, 1, 2]}
    plan = [
        {**both, "config_id": c, "values": {"num_bags": n, "hidden": None}}
        for c, n in zip(CONFIGS, (50, 100), strict=True)
    ]
    made.write("description: made\n", {"space": {}}, plan)
    for config, replicate in ((CONFIGS[0], 0), (CONFIGS[0], 1), (CONFIGS[0], 2), (CONFIGS[1], 0)):
        commit(made, config, replicate, 0.9 + replicate / 100)
    made.write_failure(CONFIGS[1], 1, {"cause": "ValueError: made", "log": ""})
    return made


def commit(folder: StudyFolder, config: str, replicate: int, value: float) -> None:
    row = {"status": "done", "cause": None, "bag_auc": value, "precision": "float32", "repeat": replicate}
    folder.ledger.commit(config, replicate, row, {})


def made_again(folder: StudyFolder) -> None:
    """A commit that was damaged, and stands a second time."""
    path = Path(folder.storage.root) / Ledger.run_key(CONFIGS[0], 1) / "commit.json"
    path.write_text("{")
    commit(folder, CONFIGS[0], 1, 0.7)


def reads(folder: StudyFolder) -> int:
    """How many runs are read from the ledger for the rows of the study."""
    again = StudyFolder(folder.storage, folder.name)
    count = 0
    read = again.ledger.read

    def counted(config: str, replicate: int, fresh_of: str | None = None) -> dict | None:
        nonlocal count
        count += 1
        return read(config, replicate, fresh_of)

    again.ledger.read = counted  # type: ignore[method-assign]
    again.rows()
    return count


def test_they_are_the_rows_of_the_ledger_value_for_value_and_no_run_is_read(folder: StudyFolder) -> None:
    assert reads(folder) == 6
    told = folder.rows()
    written = folder.compact()
    assert reads(folder) == 0
    found = folder.rows()
    for one in (told, written):
        pd.testing.assert_frame_equal(found, one)
        assert found.attrs == one.attrs
    assert found["status"].tolist() == ["done"] * 4 + ["failed", "missing"]


def changes() -> dict[str, Callable[[StudyFolder], None]]:
    def plan(folder: StudyFolder) -> None:
        entries = folder.plan()
        entries[0]["values"]["num_bags"] = 51
        folder.write_plan(entries)

    def cut(folder: StudyFolder) -> None:
        path = Path(folder.storage.root) / Ledger.run_key(CONFIGS[0], 0) / "commit.json"
        path.write_bytes(path.read_bytes()[:-5])

    def same_size(folder: StudyFolder) -> None:
        path = Path(folder.storage.root) / Ledger.run_key(CONFIGS[0], 0) / "commit.json"
        before = path.stat()
        time.sleep(0.01)  # the clock of a file system ticks in milliseconds
        path.write_bytes(path.read_bytes().replace(b"0.9", b"0.8"))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a backup would put it back

    return {
        "a run that was missing is done": lambda f: commit(f, CONFIGS[1], 2, 0.7),
        "a run that failed is done": lambda f: commit(f, CONFIGS[1], 1, 0.7),
        "a run was made again": made_again,
        "a run is gone": lambda f: f.storage.delete(f"{Ledger.run_key(CONFIGS[0], 2)}/commit.json"),
        "a failure was cleared": lambda f: f.clear_failure(CONFIGS[1], 1),
        "a run failed": lambda f: f.write_failure(CONFIGS[1], 2, {"cause": "made", "log": ""}),
        "a run failed in another way": lambda f: f.write_failure(CONFIGS[1], 1, {"cause": "other", "log": ""}),
        "a run was ended early": lambda f: f.ledger.write_pruned(CONFIGS[1], 2, "made", {"cause": "asha", "step": 5}),
        "the plan is another": plan,
        "a commit was cut short": cut,
        "a commit was edited to the same length and time": same_size,
    }


@pytest.mark.parametrize("change", changes())
def test_whatever_changes_behind_them_is_seen(folder: StudyFolder, change: str) -> None:
    before = folder.compact()
    changes()[change](folder)
    fresh = StudyFolder(folder.storage, folder.name)
    found = fresh.rows()
    assert not found.equals(before)
    fresh.storage.delete(f"{folder.key}/rows.parquet")
    pd.testing.assert_frame_equal(found, StudyFolder(folder.storage, folder.name).rows())


def test_a_change_while_they_are_written_is_seen(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    write = compacted_rows.write

    def late(*arguments: object) -> None:
        commit(folder, CONFIGS[1], 2, 0.7)  # after the rows were read, before the file is there
        write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(compacted_rows, "write", late)
    assert folder.compact()["status"].iloc[-1] == "missing"
    assert folder.rows()["status"].iloc[-1] == "done"


def test_a_damaged_commit_is_named_each_time(folder: StudyFolder) -> None:
    path = Path(folder.storage.root) / Ledger.run_key(CONFIGS[0], 0) / "commit.json"
    path.write_text("{")
    folder.compact()
    again = StudyFolder(folder.storage, folder.name)
    again.rows()
    assert list(again.ledger.damaged) == [str(path)]


DAMAGES = ["cut", "a bit", "edited", "no proof", "half a proof", "another proof", "another study's", "none"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_proves_nothing_is_passed_over(folder: StudyFolder, damage: str) -> None:
    folder.compact()
    storage, key, proof = folder.storage, f"{folder.key}/rows.parquet", f"{folder.key}/rows.proof.json"
    data = storage.read(key)
    if damage == "cut":
        storage.put(key, data[: len(data) // 2])
    elif damage == "a bit":
        at = data.index(struct.pack("<d", 0.91))  # a bag_auc
        storage.put(key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert not pd.read_parquet(io.BytesIO(storage.read(key))).equals(pd.read_parquet(io.BytesIO(data)))
    elif damage == "edited":
        frame = pd.read_parquet(io.BytesIO(data))
        frame["status"] = "done"
        storage.put(key, frame.to_parquet(index=False))
    elif damage == "no proof":
        storage.delete(proof)
    elif damage == "half a proof":
        kept = records.decode(storage.read(proof))
        del kept["attrs"]
        storage.put(proof, records.encode(kept))
    elif damage == "another proof":
        storage.put(proof, storage.read(proof).replace(b"num_bags", b"num_bugs"))
    elif damage == "another study's":
        other = StudyFolder(storage, "other")
        other.write("description: other\n", {"space": {}}, folder.plan())
        for name in ("rows.parquet", "rows.proof.json"):
            storage.put(f"{other.key}/{name}", storage.read(f"{folder.key}/{name}"))
        assert set(other.rows()["study"]) == {"other"}
    else:
        storage.delete(key)
    assert folder.rows()["status"].tolist() == ["done"] * 4 + ["failed", "missing"]
    assert reads(folder) == (0 if damage == "another study's" else 6)


def test_rows_that_parquet_would_give_back_otherwise_are_read_from_the_ledger(folder: StudyFolder) -> None:
    entries = folder.plan()
    entries[0]["values"]["hidden"] = [500, 128]  # comes back as an array
    folder.write_plan(entries)
    folder.compact()
    assert folder.rows()["hidden"].iloc[0] == [500, 128]
