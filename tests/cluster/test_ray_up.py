"""A real `ray up` over SSH on three hosts: a study spreads, survives a lost host and a lost head, and uses a bucket.

    python -m pytest -m soak tests/cluster            # as root; about ten minutes on two cores

D2L_CLUSTER_LOG=FILE keeps what was said.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import hosts as network
from ray_cluster import CREDENTIALS, ENVIRONMENT, REPOSITORY, RayCluster

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(network.why_not() is not None, reason=f"no hosts can be made here: {network.why_not()}"),
]

STUDY = "--space vat_quick --set teacher.steps=600 teacher.eval_every=20 data.test_bags=200 --replicates 2"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    with network.Hosts(3) as hosts:
        made = RayCluster(hosts, tmp_path_factory.mktemp("laptop"))
        try:
            made.up()
            yield made
        finally:
            made.forget()
            if "D2L_CLUSTER_LOG" in os.environ:
                shutil.copy(made.log, os.environ["D2L_CLUSTER_LOG"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The same study on one machine, uninterrupted."""
    root = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-m", "d2l_study", "run", *STUDY.split(), "--root", str(root)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return rows_of(root)


def rows_of(root: Path) -> pd.DataFrame:
    (file,) = root.glob("studies/*/rows.parquet")
    return pd.read_parquet(file).sort_values(["config_id", "replicate"], ignore_index=True)


def assert_same(rows: pd.DataFrame, alone: pd.DataFrame) -> None:
    """Number for number."""
    columns = ["config_id", "replicate", "status", "bag_auc", "instance_auc", "val_bag_auc", "best_step"]
    pd.testing.assert_frame_equal(rows[columns], alone[columns], check_exact=True)


def test_a_root_that_workers_do_not_see_is_refused(cluster: RayCluster) -> None:
    assert cluster.study(f"run {STUDY} --address auto --root ~/runs").returncode != 0
    said = cluster.log.read_text()
    assert "does not see it" in said and "s3://BUCKET/FOLDER" in said
    assert not cluster.hosts.run(0, "ls ~/runs/results", check=False).stdout


def test_a_study_spreads_and_survives_a_lost_host(cluster: RayCluster, alone: pd.DataFrame) -> None:
    root = cluster.hosts.shared / "runs"
    process = cluster.study(f"run {STUDY} --address auto --root {root}", wait=False)
    deadline = time.monotonic() + 300
    while len(list(root.glob("results/*/*/r*/checkpoint.pt"))) < 3:  # in the middle of the work, on both workers
        assert process.poll() is None and time.monotonic() < deadline, cluster.log.read_text()[-3000:]
        time.sleep(0.5)
    cluster.note("the link of the last host is taken down and its processes are ended")
    cluster.hosts.cut(cluster.hosts.count - 1)
    assert process.wait(timeout=600) == 0, cluster.log.read_text()[-3000:]
    rows = rows_of(root)
    assert (rows["status"] == "done").all() and len(rows) == len(alone)
    assert_same(rows, alone)
    assert "d2l-host1" in set(rows["host"])


def test_a_job_runs_by_the_dashboard_and_results_come_home(cluster: RayCluster, alone: pd.DataFrame) -> None:
    pytest.importorskip("aiohttp_cors", reason="Ray's dashboard and its jobs need the extra `cluster`")
    root = cluster.hosts.shared / "runs"  # of the test before: the job finds everything done
    inner = f"cd ~/d2l_study && ~/d2l_venv/bin/python -m d2l_study run {STUDY} --address auto --root {root}"
    job = f"RAY_AUTH_MODE=token ~/d2l_venv/bin/ray job submit --address http://127.0.0.1:8265 -- bash -c '{inner}'"
    said = cluster.hosts.run(0, job, check=False)
    cluster.note(f"$ {job}\n{said.stdout}")
    assert said.returncode == 0 and "0 to run now" in said.stdout, said.stdout + said.stderr
    home = cluster.home / "runs"
    cluster.ray("rsync-down", str(cluster.file), f"{root}/", f"{home}/")
    assert_same(rows_of(home), alone)
    command = [sys.executable, "-m", "analysis", "tables", rows_of(home)["study"][0], "--root", str(home)]
    table = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout
    assert "| vat" in table


def test_a_lost_head_is_started_again_and_the_same_command_goes_on(cluster: RayCluster, alone: pd.DataFrame) -> None:
    root = cluster.hosts.shared / "second"
    process = cluster.study(f"run {STUDY} --address auto --root {root}", wait=False)
    deadline = time.monotonic() + 300
    while not list(root.glob("results/*/*/r*/commit.json")):
        assert process.poll() is None and time.monotonic() < deadline, cluster.log.read_text()[-3000:]
        time.sleep(0.5)
    cluster.note("the head is lost, with the driver on it")
    cluster.hosts.cut(0)
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in root.glob("results/*/*/r*/commit.json")}
    assert 0 < len(done) < len(alone)
    for host in (0, cluster.hosts.count - 1):
        if host == 0 or cluster.hosts.run(host, "true", check=False).returncode:
            cluster.hosts.join(host)
    cluster.down()  # or `ray up` would trust its note that this head has been set up, and the new one is empty
    cluster.up()
    time.sleep(50)  # the lost driver's lease names another process; it is stale after 45 s
    assert cluster.study(f"run {STUDY} --address auto --root {root}").returncode == 0, cluster.log.read_text()[-3000:]
    rows = rows_of(root)
    assert_same(rows, alone)
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())  # nothing was done twice
    assert {"d2l-host1", "d2l-host2"} <= set(rows["host"])


STUDENTS = (
    "distill_quick --set teacher.steps=100 student.steps=20 student.eval_every=10 data.test_bags=100 --replicates 4"
)


def test_a_study_in_a_bucket(cluster: RayCluster) -> None:
    moto = pytest.importorskip("moto.server")
    import boto3
    import pyarrow.fs as fs

    server = moto.ThreadedMotoServer(ip_address=network.GATEWAY, port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        boto3.client(
            "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        ).create_bucket(Bucket="studies")  # fmt: skip
        root = f"s3://studies/d2l?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
        run = f"run --space smoke --address auto --root '{root}' --tracking-uri sqlite:////root/mlflow.db"
        assert cluster.study(run).returncode == 0, cluster.log.read_text()[-3000:]
        assert cluster.study(run).returncode == 0
        assert "0 to run now" in cluster.log.read_text()
        students = run.replace("smoke", STUDENTS)
        assert cluster.study(students).returncode == 0, cluster.log.read_text()[-3000:]
        os.environ.update(CREDENTIALS)
        files, base = fs.FileSystem.from_uri(root)
        kept = files.get_file_info(fs.FileSelector(f"{base}/results", recursive=True))
        assert any(info.path.endswith("commit.json") for info in kept)
        assert not any(info.path.endswith("checkpoint.pt") for info in kept)
        tables = [
            pd.read_parquet(io.BytesIO(files.open_input_stream(info.path).read()))
            for info in files.get_file_info(fs.FileSelector(f"{base}/studies", recursive=True))
            if info.path.endswith("rows.parquet")
        ]
        rows = next(table for table in tables if (table["stage"] == "student").any())
        assert (rows["status"] == "done").all() and set(rows["host"]) == {"d2l-host1", "d2l-host2"}
        runs = rows.set_index(["config_id", "replicate"])["host"]
        taught = rows[rows["stage"] == "student"]
        elsewhere = [
            runs[teacher, r] != host for teacher, r, host in taught[["teacher_id", "replicate", "host"]].values
        ]
        cluster.note(f"{sum(elsewhere)} of {len(taught)} students were trained on another host than their teacher")
        assert any(elsewhere)
    finally:
        server.stop()


SRUN = """#!/bin/bash
# srun as far as clusters/slurm.sh uses it: the command on every node of the allocation, with this environment.
shift  # --export=ALL
names=$(compgen -e | grep -E '^(PATH|PYTHONPATH|RAY_.*|SLURM_.*|OMP_.*)$')
environment=$(for name in $names; do printf 'export %s=%q; ' "$name" "${!name}"; done)
for host in $SLURM_JOB_NODELIST; do
  ssh -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "root@$host" \\
    "$environment cd /root/d2l_study && $(printf '%q ' "$@")" &
done
status=0
for job in $(jobs -p); do wait "$job" || status=$?; done
exit $status
"""


def test_the_slurm_script_runs_a_study_over_an_allocation(cluster: RayCluster, tmp_path: Path) -> None:
    """The script itself, with `srun` and `scontrol` played by SSH to the two hosts that stand for the nodes."""
    hosts = cluster.hosts
    nodes = [hosts.address(host) for host in (1, 2)]
    for host in range(hosts.count):
        hosts.run(host, "RAY_AUTH_MODE=token ~/d2l_venv/bin/ray stop", check=False)
    for name, text in {
        "srun": SRUN.replace("{key}", str(hosts.key)),
        "scontrol": '#!/bin/sh\nfor host in $SLURM_JOB_NODELIST; do echo "$host"; done\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    root = hosts.shared / "slurm"
    environment = {
        **os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": f"{ENVIRONMENT}/bin/python",
        "SLURM_JOB_ID": "12345", "SLURM_JOB_NODELIST": " ".join(nodes), "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "2", "PYTHONPATH": "/root/d2l_study",
    }  # fmt: skip
    words = ["bash", "clusters/slurm.sh", "run", *STUDY.split(), "--root", str(root)]
    done = subprocess.run(words, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    cluster.note(f"$ {' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = rows_of(root)
    assert (rows["status"] == "done").all() and set(rows["host"]) == {"d2l-host1", "d2l-host2"}
