"""Power lost under a real file system: ext4 on a loop device, whose image is copied as it is at random moments.

What the system holds back in memory is not in the image, so the copy is what a machine would find after a loss of
power; mounting it replays the journal of ext4, as the machine would.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage

pytestmark = pytest.mark.soak

MOMENTS = 40
OPTIONS = "commit=600,nodelalloc"
"""The journal is written when somebody asks for it, and not every five seconds."""

WORK = """
import os, sys
if sys.argv[2:]:
    os.fsync = lambda number: None
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
ledger = Ledger(LocalStorage(sys.argv[1]))
for number in range(10_000):
    config, replicate = f"{number // 4:020x}", number % 4
    files = {"curve.json": b"[]" * 40, "weights.safetensors": bytes([number % 256]) * 9000}
    ledger.save_checkpoint(config, replicate, b"PK" + b"c" * 5000)
    ledger.commit(config, replicate, {"status": "done", "number": number}, files)
    ledger.drop_checkpoint(config, replicate)
    print(number, flush=True)
"""


def system(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot {words[0]} here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path):
    """An ext4 of its own, mounted, where the rights of this process allow it: (image, folder)."""
    image, point = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(256 * 2**20)
    system("mkfs.ext4", "-q", "-F", image)
    point.mkdir()
    system("mount", "-o", f"loop,{OPTIONS}", image, point)
    yield image, point
    subprocess.run(["umount", "-l", str(point)], check=False)


def test_a_copied_disk_shows_whole_commits_and_all_that_were_told(disk, tmp_path):
    assert work_and_look(*disk, tmp_path) > MOMENTS / 2


def test_without_a_sync_it_would_not(disk, tmp_path):
    with pytest.raises(AssertionError, match="is lost"):
        work_and_look(*disk, tmp_path, "no sync")


def work_and_look(image, point, tmp_path, *words):
    """The commits of the last look."""
    copy, left = tmp_path / "copy", tmp_path / "left"
    left.mkdir()
    told = tmp_path / "told"
    draw = random.Random(7)
    with told.open("w") as out:
        worker = subprocess.Popen([sys.executable, "-c", WORK, str(point / "runs"), *words], stdout=out,
                                  start_new_session=True)  # fmt: skip
    found = 0
    try:
        while not told.read_text():
            assert worker.poll() is None
            time.sleep(0.05)
        for _ in range(MOMENTS):
            time.sleep(draw.uniform(0, 0.15))
            os.kill(worker.pid, signal.SIGSTOP)
            time.sleep(0.05)  # what it has asked for by now is carried out
            last = int(told.read_text().split()[-1])
            shutil.copyfile(image, copy)
            os.kill(worker.pid, signal.SIGCONT)
            assert worker.poll() is None, "the disk is full: fewer moments"
            system("mount", "-o", "loop", copy, left)
            try:
                found = check(left / "runs", last)
            finally:
                subprocess.run(["umount", str(left)], check=True)
    finally:
        worker.kill()
        worker.wait()
    return found


def check(root, last):
    """Every commit is whole, and all up to the last that was told are there; returns how many there are."""
    ledger = Ledger(LocalStorage(root))
    count = 0
    for number in range(last + 2):
        config, replicate = f"{number // 4:020x}", number % 4
        record = ledger.read(config, replicate)
        assert record is not None or number > last, f"commit {number} of {last} is lost"
        if record is not None:
            count += 1
            assert record["row"]["number"] == number
            assert ledger.read_file(config, replicate, "weights.safetensors") == bytes([number % 256]) * 9000
            assert json.loads(ledger.read_file(config, replicate, "curve.json").decode()[:2]) == []
    assert not ledger.damaged
    return count
