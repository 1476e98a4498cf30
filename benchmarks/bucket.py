"""What a bucket's distance costs: requests, and seconds at so many milliseconds a request.

moto's S3 server in this process, made to answer late (`--delay`), holds a study of `--configurations` with five
replicates each. Measured: to see what is done (`plan`, every start of `run`), to read all rows (tables, the end of
every study), to read the rows of one configuration (the driver, at the end of each), and to commit a run (a worker).

    python benchmarks/bucket.py [--delay 30] [--configurations 60]
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

from options import positive_number, whole_number

REPLICATES = 5
FILES = {"curve.json": b"[]", "predictions.parquet": bytes(60_000), "weights.safetensors": bytes(100_000)}


def serve(delay: float) -> tuple[str, list[str]]:
    """The address of a bucket, and a list that grows with its requests."""
    import boto3
    from moto.server import ThreadedMotoServer
    from werkzeug.serving import WSGIRequestHandler

    seen: list[str] = []
    handle = WSGIRequestHandler.run_wsgi

    def late(handler: Any) -> None:
        seen.append(handler.command)
        time.sleep(delay)
        handle(handler)

    WSGIRequestHandler.run_wsgi = late  # type: ignore[method-assign]
    WSGIRequestHandler.log_request = lambda *words: None  # type: ignore[method-assign,misc]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
    client.create_bucket(Bucket="studies")
    return f"s3://studies/runs?scheme=http&endpoint_override={host}:{port}&region=us-east-1", seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--delay", type=positive_number, default=30.0, help="milliseconds that every request takes longer"
    )
    parser.add_argument("--configurations", type=whole_number, default=60)
    arguments = parser.parse_args()
    import pandas  # noqa: F401  (not to be counted)

    from d2l_study.study.ledger.ledger import config_id
    from d2l_study.study.ledger.root import open_storage
    from d2l_study.study.ledger.study_folder import StudyFolder
    from d2l_study.study.plan.plan import make_plan
    from d2l_study.study.space.load import load_space

    address, seen = serve(arguments.delay / 1000)
    folder = StudyFolder(open_storage(address), "far")
    row = {"status": "done", "bag_auc": 0.9}

    def fill(config: str) -> None:
        for replicate in range(REPLICATES):
            folder.ledger.commit(config, replicate, row, {})

    rates = ",".join(f"{1e-4 * (i + 1):g}" for i in range(arguments.configurations))
    space = load_space("smoke", [f"methods.none.teacher.learning_rate=[{rates}]"], REPLICATES)
    configurations = make_plan(space, "checksum").configurations
    entries = [{"config_id": c.config_id, "stage": "teacher", "method": "none", "values": {}, "varied": [],
                "replicates": list(range(REPLICATES))} for c in configurations]  # fmt: skip
    folder.write("", {}, entries)
    for entry in entries:
        fill(entry["config_id"])

    def measure(what: str, work: Callable[[], Any]) -> None:
        seen.clear()
        begun = time.perf_counter()
        work()
        print(f"{what}: {time.perf_counter() - begun:.2f} s, {len(seen)} requests", flush=True)

    runs = REPLICATES * len(entries)
    measure(f"what is done, of {runs} runs", lambda: make_plan(space, "checksum", folder.ledger))
    measure(f"all rows, {runs}", folder.rows)
    measure(f"the rows of a configuration, {REPLICATES}", lambda: folder.rows_of(entries[0]))
    measure("a commit of three files", lambda: folder.ledger.commit(config_id("teacher", {}, "", 1), 0, row, FILES))


if __name__ == "__main__":
    main()
