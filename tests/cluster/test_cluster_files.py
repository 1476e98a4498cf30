"""cluster.yaml and clusters/*: read by Ray's own code, and sent as far as a mock of EC2."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FILES = ("cluster.yaml", "clusters/onprem.yaml")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_ray_accepts_the_file(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(REPOSITORY)
    prepared = prepare_config(read(name))
    validate_config(prepared)
    head = prepared["available_node_types"][prepared["head_node_type"]]
    assert head["resources"].get("CPU") == 0 or "--num-cpus=0" in " ".join(prepared["head_start_ray_commands"])


@pytest.mark.parametrize("name", FILES)
def test_every_start_command_demands_the_token_and_every_node_gets_it(name: str) -> None:
    config = read(name)
    starts = [
        c for key in ("head_start_ray_commands", "worker_start_ray_commands") for c in config[key] if "ray start" in c
    ]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token" in command for command in starts)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "0.0.0.0" not in (REPOSITORY / name).read_text()
    assert not any("--force" in c for key in config if key.endswith("commands") for c in config[key])


@pytest.mark.parametrize("name", FILES)
def test_the_checkout_arrives_whole_but_without_data_and_results(name: str, tmp_path: Path) -> None:
    """By rsync itself, with the file's own patterns: `data` alone would also leave d2l_study/data behind."""
    import shutil

    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    source, target = tmp_path / "checkout", tmp_path / "node"
    for path in ("d2l_study/data/pool.py", "data/private.bmp", "runs/results/x", ".git/config", ".venv/bin/python",
                 "search_spaces/smoke.yaml", "analysis/__pycache__/x.pyc"):  # fmt: skip
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text("x")
    excludes = [word for pattern in read(name)["rsync_exclude"] for word in ("--exclude", pattern)]
    subprocess.run(["rsync", "-a", *excludes, f"{source}/", f"{target}/"], check=True)
    arrived = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    assert arrived == ["d2l_study/data/pool.py", "search_spaces/smoke.yaml"]


def test_python_packages_are_pinned() -> None:
    pinned = (REPOSITORY / "constraints.txt").read_text()
    assert re.search(r"^ray==", pinned, re.MULTILINE) and re.search(r"^torch==", pinned, re.MULTILINE)
    for name in FILES:
        installs = [command for command in read(name)["setup_commands"] if "pip install" in command]
        assert installs and all("-c ~/d2l_study/constraints.txt" in command for command in installs)


@pytest.fixture(scope="module")
def mock() -> Iterator[str]:
    """A mock of AWS that speaks HTTP; its address. One for all: Ray's connections to it are the process's."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(mock: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty account, for this process and its children; its address."""
    from ray.autoscaler._private.aws import config

    urllib.request.urlopen(urllib.request.Request(f"{mock}/moto-api/reset", method="POST")).close()
    config._get_subnets_or_die.cache_clear()
    for name, value in {
        "AWS_ENDPOINT_URL": mock, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-west-2", "HOME": str(tmp_path),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    return mock


@pytest.mark.soak
def test_the_instances_asked_for_are_the_ones_meant(aws: str) -> None:
    import boto3
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider
    from ray.autoscaler.tags import TAG_RAY_NODE_KIND, TAG_RAY_NODE_NAME, TAG_RAY_USER_NODE_TYPE

    iam = boto3.client("iam", region_name="us-west-2")
    trust = '{"Version": "2012-10-17", "Statement": []}'
    iam.create_role(RoleName="d2l-study", AssumeRolePolicyDocument=trust)
    iam.create_instance_profile(InstanceProfileName="d2l-study")
    iam.add_role_to_instance_profile(InstanceProfileName="d2l-study", RoleName="d2l-study")
    ec2 = boto3.client("ec2", region_name="us-west-2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]

    config = read("cluster.yaml")
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["ImageId"].startswith("resolve:ssm:/aws/service/")
        kind["node_config"]["ImageId"] = image  # the mock knows no parameters
    config = _bootstrap_config(config, no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    for kind, node in config["available_node_types"].items():
        tags = {TAG_RAY_NODE_KIND: "head" if kind == "head" else "worker", TAG_RAY_USER_NODE_TYPE: kind,
                TAG_RAY_NODE_NAME: f"ray-d2l-study-{kind}"}  # fmt: skip
        provider.create_node(node["node_config"], tags, 1)
    found = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            assert tags["ray-cluster-name"] == "d2l-study"
            found[tags[TAG_RAY_USER_NODE_TYPE]] = instance
    assert {kind: i["InstanceType"] for kind, i in found.items()} == {
        "head": "m6i.xlarge", "gpu_spot": "g6.xlarge", "gpu_reserve": "g6.xlarge",
    }  # fmt: skip
    assert {kind for kind, i in found.items() if i.get("InstanceLifecycle") == "spot"} == {"gpu_spot"}
    for instance in found.values():
        assert instance["ImageId"] == image
        assert instance["KeyName"].startswith("ray-autoscaler")
        assert instance["IamInstanceProfile"]["Arn"].endswith("/d2l-study")
        (group,) = ec2.describe_security_groups(GroupIds=[g["GroupId"] for g in instance["SecurityGroups"]])[
            "SecurityGroups"
        ]
        public = [r for r in group["IpPermissions"] if any(span["CidrIp"] == "0.0.0.0/0" for span in r["IpRanges"])]
        open_ports = {rule.get("FromPort") for rule in public}
        assert open_ports == {22}


@pytest.mark.parametrize(("availability", "chosen"), [({}, "gpu_spot"), ({"gpu_spot": 0.0}, "gpu_reserve")])
def test_spot_comes_first_and_the_reserve_when_there_is_none(availability: dict[str, float], chosen: str) -> None:
    from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
    from ray.autoscaler.v2.scheduler import (
        ResourceDemandScheduler,
        ResourceRequestSource,
        ResourceRequestUtil,
        SchedulingNode,
        SchedulingNodeStatus,
    )
    from ray.core.generated.instance_manager_pb2 import NodeKind

    nodes = [
        SchedulingNode.from_node_config(
            NodeTypeConfig(name=name, min_worker_nodes=0, max_worker_nodes=2, resources=kind["resources"],
                           priority=kind.get("priority", 0)),
            SchedulingNodeStatus.TO_LAUNCH, NodeKind.WORKER,
        )
        for name, kind in reversed(read("cluster.yaml")["available_node_types"].items()) if name != "head"
    ]  # fmt: skip
    trial = ResourceRequestUtil.make({"CPU": 1, "GPU": 1})
    best, left, _ = ResourceDemandScheduler._sched_best_node(
        [trial], nodes, ResourceRequestSource.PENDING_DEMAND, availability, availability
    )
    assert not left and best.node_type == chosen


PLAYED = {
    "srun": '#!/bin/sh\nshift\nexec "$@"\n',
    "scontrol": "#!/bin/sh\necho localhost\n",
    "ray": '#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\n"$@"\n',
    "python": """#!/bin/sh
[ "$1" = -c ] && { echo token; exit; }
trap 'sleep 1; echo "stopped cleanly" > "$RESULT"; exit 130' TERM
trap 'exit 1' INT
echo "began $*" > "$RESULT"
while true; do sleep 0.1; done
""",
}


def test_slurm_s_signal_stops_the_driver_cleanly_and_is_waited_for(tmp_path: Path) -> None:
    for name, text in PLAYED.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    result = tmp_path / "result"
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python"),
                   "RESULT": str(result), "SLURM_JOB_ID": "1", "SLURM_JOB_NODELIST": "localhost",
                   "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_PER_TASK": "2"}  # fmt: skip
    script = REPOSITORY / "clusters/slurm.sh"
    assert "\n#SBATCH --signal=B:USR1@120 " in script.read_text()
    words = ["bash", str(script), "run", "--space", "smoke"]
    job = subprocess.Popen(words, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not result.exists() or not result.read_text():
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        assert result.read_text().startswith("began -m d2l_study run --space smoke --address 127.0.0.1:20001")
        job.send_signal(signal.SIGUSR1)  # `--signal=B:USR1@120` goes to the batch script alone
        assert job.wait(timeout=60) == 130
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    assert result.read_text() == "stopped cleanly\n"


def set_up(*words: str) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("aws")
    if not command.exists():
        pytest.skip("the aws command (pip install awscli) is not installed")
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    return subprocess.run(["bash", str(REPOSITORY / "clusters/aws_setup.sh"), *words], env=environment,
                          capture_output=True, text=True)  # fmt: skip


def policy() -> list[dict[str, Any]]:
    import boto3

    iam = boto3.client("iam", region_name="us-west-2")
    return iam.get_role_policy(RoleName="d2l-study", PolicyName="d2l-study")["PolicyDocument"]["Statement"]


@pytest.mark.soak
def test_the_setup_script_makes_bucket_and_role_and_changes_nothing_the_second_time(aws: str) -> None:
    import boto3

    for words in ((), ("mine",)):  # the second time another cluster's name, which takes the place of the first's
        done = set_up("us-west-2", "my-studies", *words)
        assert done.returncode == 0, done.stderr
    mine = {"ec2:ResourceTag/ray-cluster-name": "mine"}
    assert allows(policy(), "ec2:TerminateInstances", f"{HERE}:instance/i-1", mine)
    assert not allows(policy(), "ec2:TerminateInstances", f"{HERE}:instance/i-1", OURS)
    assert "s3://my-studies" in done.stdout
    iam = boto3.client("iam", region_name="us-west-2")
    (role,) = iam.get_instance_profile(InstanceProfileName="d2l-study")["InstanceProfile"]["Roles"]
    reach = [statement["Resource"] for statement in policy() if "s3:GetObject" in statement["Action"]]
    assert role["RoleName"] == "d2l-study" and reach == ["arn:aws:s3:::my-studies/*"]
    block = boto3.client("s3", region_name="us-west-2").get_public_access_block(Bucket="my-studies")
    assert all(block["PublicAccessBlockConfiguration"].values())


def allows(statements: list[dict[str, Any]], action: str, resource: str, context: dict[str, str]) -> bool:
    """Whether a policy without denials allows a request, as IAM decides it: * matches anything, a condition on a key
    that the request has not fails."""

    def fits(patterns: str | list[str], value: str) -> bool:
        return any(fnmatchcase(value, one) for one in ([patterns] if isinstance(patterns, str) else patterns))

    for statement in statements:
        assert statement["Effect"] == "Allow" and set(statement.get("Condition", {})) <= {"StringEquals"}
        wanted = statement.get("Condition", {}).get("StringEquals", {})
        if (
            fits(statement["Action"], action)
            and fits(statement["Resource"], resource)
            and all(context.get(key) == value for key, value in wanted.items())
        ):
            return True
    return False


HERE = "arn:aws:ec2:us-west-2:123456789012"
OURS, THEIRS = {"ec2:ResourceTag/ray-cluster-name": "d2l-study"}, {"ec2:ResourceTag/ray-cluster-name": "other"}
NEW = {"aws:RequestTag/ray-cluster-name": "d2l-study"}
BEYOND = [
    ("ec2:TerminateInstances", f"{HERE}:instance/i-1", {}),
    ("ec2:TerminateInstances", f"{HERE}:instance/i-1", THEIRS),
    ("ec2:TerminateInstances", f"{HERE}:instance/i-1", NEW),
    ("ec2:TerminateInstances", "arn:aws:ec2:eu-west-1:123456789012:instance/i-1", OURS),
    ("ec2:CreateTags", f"{HERE}:instance/i-1", NEW),  # to make somebody's instance one of ours, and end it
    ("ec2:CreateTags", f"{HERE}:instance/i-1", NEW | THEIRS),
    ("ec2:CreateTags", f"{HERE}:instance/i-1", {"ec2:CreateAction": "RunInstances"}),
    ("ec2:CreateTags", f"{HERE}:volume/v-1", OURS | NEW),
    ("ec2:RunInstances", f"{HERE}:instance/*", {}),
    ("ec2:RunInstances", f"{HERE}:instance/*", {"aws:RequestTag/ray-cluster-name": "other"}),
    ("ec2:StopInstances", f"{HERE}:instance/i-1", OURS), ("ec2:ModifyInstanceAttribute", f"{HERE}:instance/i-1", OURS),
    ("ec2:DeleteVolume", f"{HERE}:volume/v-1", {}),
    ("ec2:AuthorizeSecurityGroupIngress", f"{HERE}:security-group/g", {}),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/admin", {"iam:PassedToService": "ec2.amazonaws.com"}),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/d2l-study", {"iam:PassedToService": "lambda.amazonaws.com"}),
    ("iam:PutRolePolicy", "arn:aws:iam::123456789012:role/d2l-study", {}),
    ("s3:GetObject", "arn:aws:s3:::other/x", {}), ("s3:DeleteBucket", "arn:aws:s3:::my-studies", {}),
    ("ssm:GetParameters", "arn:aws:ssm:us-west-2:123456789012:parameter/secret", {}),
]  # fmt: skip


def played_policy(folder: Path) -> list[dict[str, Any]]:
    """The policy that the script would put, by an `aws` that says of every thing that it is there."""
    played = folder / "aws"
    played.write_text(f"""#!{sys.executable}
import sys
words = sys.argv[1:]
if "Role.Arn" in words:
    print("arn:aws:iam::123456789012:role/d2l-study")
if "--policy-document" in words:
    open({str(folder / "policy.json")!r}, "w").write(words[words.index("--policy-document") + 1])
""")
    played.chmod(0o755)
    subprocess.run(["bash", str(REPOSITORY / "clusters/aws_setup.sh"), "us-west-2", "my-studies"], check=True,
                   env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}, capture_output=True)  # fmt: skip
    return json.loads((folder / "policy.json").read_text())["Statement"]


@pytest.mark.slow
def test_a_node_starts_tags_and_ends_what_ray_asks_for_and_nothing_else_of_the_account(
    aws: str, tmp_path: Path
) -> None:
    """The requests are those of Ray's own provider, made to a mock of EC2 and held against the policy."""
    import boto3
    from ray.autoscaler._private.commands import _bootstrap_config
    from ray.autoscaler._private.providers import _get_node_provider

    iam = boto3.client("iam", region_name="us-west-2")
    iam.create_role(RoleName="d2l-study", AssumeRolePolicyDocument='{"Version": "2012-10-17", "Statement": []}')
    iam.create_instance_profile(InstanceProfileName="d2l-study")
    iam.add_role_to_instance_profile(InstanceProfileName="d2l-study", RoleName="d2l-study")
    statements = played_policy(tmp_path)
    for action, resource, context in BEYOND:
        assert not allows(statements, action, resource, context), (action, resource, context)

    config = read("cluster.yaml")
    ec2 = boto3.client("ec2", region_name="us-west-2")
    image = ec2.describe_images(Owners=["amazon"], MaxResults=5)["Images"][0]["ImageId"]
    for kind in config["available_node_types"].values():
        kind["node_config"]["ImageId"] = image
    config = _bootstrap_config(config, no_config_cache=True)
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    asked: list[tuple[str, dict[str, Any]]] = []
    for client in (provider.ec2.meta.client, provider.ec2_fail_fast.meta.client):
        client.meta.events.register(
            "provide-client-params.ec2.*", lambda params, model, **_: asked.append((model.name, params))
        )
    for kind in ("head", "gpu_spot"):
        provider.create_node(config["available_node_types"][kind]["node_config"], {"ray-user-node-type": kind}, 1)
    nodes = provider.non_terminated_nodes({})
    provider.set_node_tags(nodes[0], {"ray-node-status": "up-to-date"})
    provider.terminate_nodes(nodes[:1])
    provider.terminate_node(nodes[1])
    assert {name for name, _ in asked} >= {"RunInstances", "CreateTags", "TerminateInstances", "DescribeInstances"}

    for name, params in asked:
        if name.startswith("Describe"):
            assert allows(statements, f"ec2:{name}", "*", {})
        elif name == "RunInstances":
            (tags,) = params["TagSpecifications"]
            assert tags["ResourceType"] == "instance"
            new = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in tags["Tags"]}
            assert allows(statements, "ec2:RunInstances", f"{HERE}:instance/*", new)
            assert allows(statements, "ec2:CreateTags", f"{HERE}:instance/i-1", new | {"ec2:CreateAction": name})
            for part in ("subnet/s", "security-group/g", "key-pair/k", "network-interface/*", "volume/*"):
                assert allows(statements, "ec2:RunInstances", f"{HERE}:{part}", new)
            assert allows(statements, "ec2:RunInstances", "arn:aws:ec2:us-west-2::image/ami-1", new)
        else:  # of nodes that were started with the tag
            assert allows(statements, f"ec2:{name}", f"{HERE}:instance/i-1", OURS), name
    role = "arn:aws:iam::123456789012:role/d2l-study"
    assert allows(statements, "iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})
    image = "arn:aws:ssm:us-west-2::parameter/aws/service/deeplearning/ami/x86_64/latest/ami-id"
    assert allows(statements, "ssm:GetParameters", image, {}) and config["cluster_name"] == "d2l-study"


def test_the_setup_takes_no_pattern_for_a_name() -> None:
    for words in (("us-west-2", "*"), ("*", "b"), ("us-west-2", "b", '"x'), ("us-west-2",), ("us-west-2", "b", "")):
        done = set_up(*words)
        assert done.returncode == 2 and "usage: " in done.stderr


def test_the_kubernetes_job_names_the_pinned_ray_and_a_command_that_parses() -> None:
    from d2l_study.cli import command_parser

    volume, job = yaml.safe_load_all((REPOSITORY / "clusters/kuberay.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    assert f"\nray=={cluster['rayVersion']}\n" in (REPOSITORY / "constraints.txt").read_text()
    assert cluster["authOptions"] == {"mode": "token"}
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "d2l_study"]
    asked = command_parser().parse_args(words[3:])
    assert asked.max_concurrent  # the cluster has no worker yet when the study begins
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for c in pod["containers"] for mount in c["volumeMounts"]}
        claims = {v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]}
        assert mounts == {"results": asked.root} and claims == {"results": volume["metadata"]["name"]}
