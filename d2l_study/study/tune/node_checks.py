"""Checks of a cluster's nodes before a study runs on them: this package, the data, and the root of results.

A worker that lacks one of these would fail every trial it gets, and a root that only the driver sees would scatter the
results. So every node is asked first. The error names the node and says what to do.
"""

from __future__ import annotations

import platform
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import d2l_study
from d2l_study.errors import StorageError, UserError
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.trial_request import TrialRequest

SHARED = (
    "on several machines results need a folder that all of them share (--root /nfs/…) or a bucket "
    "(--root s3://BUCKET/FOLDER)"
)
WAIT_SECONDS = 120.0
"""For a node to answer. Its first worker process imports torch."""


def check_nodes(ray: Any, storage: Storage, sections: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Ask every node that can run trials. Returns the nodes' ids, each with why its PyTorch cannot use GPUs, or empty.

    sections: the different `data` sections of the study. To load them here also fills each node's cache once, before
    several trials of the node would. `UserError` names the first node that lacks something.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    key, mark = f"studies/.probe-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    storage.put(key, mark.encode())
    try:
        answers, unusable = {}, {}
        for node in nodes:
            here = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
            probe = ray.remote(num_cpus=0, max_retries=2)(_probe_function()).options(scheduling_strategy=here)
            gpus = int(node["Resources"].get("GPU", 0))
            answers[probe.remote(str(storage.root), key, [dict(section) for section in sections], gpus)] = node
        ready, late = ray.wait(list(answers), num_returns=len(answers), timeout=WAIT_SECONDS)
        if late:
            raise UserError(f"node {_name(answers[late[0]])} does not answer within {WAIT_SECONDS:g} s (`ray status`)")
        for answer in ready:
            try:
                found = ray.get(answer)
            except Exception as error:  # whatever kept the probe from running there
                cause = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                raise UserError(f"node {_name(answers[answer])}: {cause[0]}") from None
            _check_answer(found, _name(answers[answer]), storage, mark)
            unusable[answers[answer]["NodeID"]] = found["unusable"]
    finally:
        storage.delete(key)
    return unusable


def check_root_is_shared(request: TrialRequest) -> None:
    """In a worker, before its trial: `StorageError` if this node does not see the study's folder. A node that a cluster
    starts on demand was not there to be asked (`check_nodes`)."""
    if not StudyFolder(open_storage(request.root, known=True), request.study).exists():
        raise StorageError(None, f"node {platform.node()} does not see it; {SHARED}", request.root)


def _check_answer(found: Mapping[str, Any], node: str, storage: Storage, mark: str) -> None:
    if found.get("missing"):
        raise UserError(
            f"node {node}: Python {found['python']} there cannot import d2l_study ({found['missing']}); install it on "
            "every node (`pip install -c constraints.txt .`), or start Ray from the environment that has it"
        )
    here = f"{d2l_study.__version__}, science {d2l_study.SCIENCE_VERSION}"
    if found["version"] != here:
        raise UserError(f"node {node}: has d2l_study {found['version']}; the driver has {here}")
    if found["mark"] != mark:
        raise UserError(
            f"--root {storage.root}: node {node} does not see it ({found['mark'] or 'not there'}); {SHARED}"
        )
    if found.get("data"):
        raise UserError(f"node {node}: {found['data']}")


def _probe_function() -> Any:
    """The function that runs on each node. Ray sends it by value, so a node without this package can run it too."""

    def probe(root: str, key: str, sections: list[dict[str, Any]], gpus: int = 0) -> dict[str, Any]:
        import sys

        answer: dict[str, Any] = {"python": sys.version.split()[0]}
        try:
            import d2l_study
            from d2l_study.data import DATASETS
            from d2l_study.errors import UserError
            from d2l_study.study.ledger.root import open_storage
            from d2l_study.study.tune import machine
        except Exception as error:
            return answer | {"missing": f"{type(error).__name__}: {error}"}
        answer["version"] = f"{d2l_study.__version__}, science {d2l_study.SCIENCE_VERSION}"
        ask = getattr(machine, "why_node_unusable", None)  # an older version, which is refused for that, has none
        answer["unusable"] = ask(gpus) if ask is not None else ""
        try:
            answer["mark"] = open_storage(root).read(key).decode()
        except (OSError, UserError) as error:
            answer["mark"] = getattr(error, "strerror", None) or str(error)
            return answer
        try:
            for section in sections:
                DATASETS[section["dataset"]](**section).load_pool()
        except (OSError, UserError) as error:
            answer["data"] = str(error)
        return answer

    return probe


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']})"
