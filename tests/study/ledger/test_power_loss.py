"""Power is lost at any moment: the ledger shows no commit without its files, and loses none it told of."""

import random
import shutil
from pathlib import Path

import pytest
from power import Disk, recorded

from d2l_study.errors import DamagedError
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files are told from numbers by /proc")

CONFIG = "ab" * 10
FILES = {"curve.json": b"[]", "weights.safetensors": b"w" * 600}
ROW = {"status": "done", "bag_auc": 0.75, "made_by": "s"}


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "root"
    path.mkdir()
    return path


def left_of(disk: Disk, scratch: Path):
    """Every state that a loss may leave: what the caller had been told by then, and the folder rebuilt."""
    seen = set()
    for told, state in disk.states(random.Random(5)):
        key = (len(told), tuple(sorted(state.items())))
        if key not in seen:
            seen.add(key)
            target = scratch / "left"
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            disk.write(state, target)
            yield told, LocalStorage(target)


def check_ledger(disk: Disk, scratch: Path) -> int:
    """Returns how many states there were."""
    count = 0
    for count, (told, storage) in enumerate(left_of(disk, scratch), 1):  # noqa: B007
        ledger = Ledger(storage)
        for replicate in (0, 1):
            record = ledger.read(CONFIG, replicate)
            assert record is not None or replicate not in told, f"r{replicate} was committed and is lost"
            for name, data in FILES.items() if record else ():
                assert ledger.read_file(CONFIG, replicate, name) == data
    return count


def test_a_commit_is_whole_or_not_there(root, tmp_path):
    ledger = Ledger(LocalStorage(root))
    with recorded(root) as disk:
        ledger.write_config(CONFIG, {"stage": "teacher"})
        for replicate in (0, 1):
            assert ledger.commit(CONFIG, replicate, ROW, FILES, attempt=f"{replicate}" * 8)
            disk.mark(replicate)
        assert not ledger.commit(CONFIG, 1, ROW, FILES, attempt="f" * 8)  # a second one takes nothing away
    assert check_ledger(disk, tmp_path) > 50


def test_a_plan_is_the_one_before_or_the_new_one(root, tmp_path):
    def plan(count):
        return [{"config_id": f"{i}" * 20, "stage": "teacher", "method": "none", "values": {}, "varied": [],
                 "replicates": [0]} for i in range(count)]  # fmt: skip

    folder = StudyFolder(LocalStorage(root), "s")
    with recorded(root) as disk:
        for count in (1, 2):
            folder.write_plan(plan(count))
            disk.mark(count)
    found = set()
    for told, storage in left_of(disk, tmp_path):
        there = StudyFolder(storage, "s")
        found.add(len(there.plan()) if there.exists() else 0)
        assert found <= {0, 1, 2} and (not told or len(there.plan()) >= told[-1])
    assert found == {0, 1, 2}


def test_the_double_finds_what_was_not_synced(root, tmp_path, monkeypatch):
    """It could fail: without any sync commits are lost, or found without their files."""
    with recorded(root) as disk:
        monkeypatch.setattr(disk, "synced", lambda path: None)
        Ledger(LocalStorage(root)).commit(CONFIG, 0, ROW, FILES, attempt="0" * 8)
        disk.mark(0)
    with pytest.raises((AssertionError, DamagedError, FileNotFoundError)):
        check_ledger(disk, tmp_path)
