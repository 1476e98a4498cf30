"""All processes that a study starts are ended with it."""

import subprocess
import sys
import time

from d2l_study.study.tune import processes

TREE = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); {}"


def test_all_that_was_started_is_ended_orphans_and_stopped_ones_too():
    keep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with processes.child_processes() as kill_all:
        parent = subprocess.Popen([sys.executable, "-c", TREE.format("sys.exit()")])  # leaves an orphan
        assert parent.wait(60) == 0
        stopped = subprocess.Popen([sys.executable, "-c", TREE.format("time.sleep(600)")])
        psutil = processes._psutil()
        me = psutil.Process()
        while len(me.children(recursive=True)) < 4:
            time.sleep(0.01)
        mine = [one for one in me.children(recursive=True) if one.pid != keep.pid]
        psutil.Process(stopped.pid).suspend()
        while processes.process_state(psutil.Process(stopped.pid)) != "stopped":
            time.sleep(0.01)
        kill_all()
        assert [processes.process_state(one) for one in mine] == ["ended"] * 3 and keep.poll() is None
    keep.kill()
    keep.wait()
    stopped.wait()
