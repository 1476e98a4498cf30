"""What killed processes leave is removed by the next one, and what living ones use is not."""

import os
import signal
import subprocess
import sys
import time

from d2l_study import temporary_files
from d2l_study.temporary_files import scratch_folder

OWNER = """
import sys, time
from d2l_study.temporary_files import scratch_folder
with scratch_folder("d2l-test-", sys.argv[1]) as folder:
    open(folder + "/file", "w").close()
    print(folder, flush=True)
    time.sleep(600)
"""


def test_the_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(tmp_path):
    owners = [subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
              for _ in range(2)]  # fmt: skip
    folders = [owner.stdout.readline().strip() for owner in owners]
    os.kill(owners[0].pid, signal.SIGKILL)
    owners[0].wait()
    with scratch_folder("d2l-test-", str(tmp_path)) as mine:
        assert sorted(map(str, tmp_path.iterdir())) == sorted([folders[1], mine])
    assert [str(path) for path in tmp_path.iterdir()] == [folders[1]]
    owners[1].kill()
    owners[1].wait()


def test_a_folder_without_an_owner_goes_when_it_is_old(tmp_path):
    new, old = tmp_path / "d2l-test-new", tmp_path / "d2l-test-old"
    for folder, age in ((new, 60.0), (old, temporary_files.OLD_SECONDS + 60)):
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    with scratch_folder("d2l-test-", str(tmp_path)):
        assert new.is_dir() and not old.exists()
