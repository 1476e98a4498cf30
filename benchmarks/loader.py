"""What tissue images cost before training: decoding and cutting a data set once, and mapping it from the cache after.

    D2L_DATA=/folder/of/archives python benchmarks/loader.py [--dataset colon|breast] [--json FILE]

Each line is a process of its own with one thread of torch and numpy: wall and processor seconds of `load_pool`, and the
memory after reading every patch once: its own (private and written to), and what it can share (files that are mapped,
the patches and libraries). Without D2L_DATA 100 synthetic colon images of
500×500 pixels are measured. `together` starts four processes at once on an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from options import output_file

CHILD = """
import json, resource, sys, time
from d2l_study.data import DATASETS
from d2l_study.errors import UserError
data = DATASETS[sys.argv[1]](**json.loads(sys.argv[2]))
begin, cpu = time.perf_counter(), time.process_time()
try:
    pool = data.load_pool()
except UserError as error:
    sys.exit(f"error: {error}")
wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
for start in range(0, len(pool.instances), 500):
    pool.instances[start : start + 500].sum()
memory = {line.split()[0]: int(line.split()[1]) for line in list(open("/proc/self/smaps_rollup"))[1:]}
own, shared = memory["Private_Dirty:"], memory["Rss:"] - memory["Private_Dirty:"]
print(json.dumps({"wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "private_mb": own // 1024,
                  "shared_mb": shared // 1024, "instances": len(pool.instances), "bags": len(pool.bags),
                  "pool_mb": pool.instances.nbytes // 2**20, "checksum": pool.checksum}))
"""


def start(dataset: str, keys: dict[str, object], cache: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "D2L_CACHE": cache, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, dataset, json.dumps(keys)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def result(process: subprocess.Popen[str]) -> dict[str, object]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(2)  # it has said why
    return json.loads(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("colon", "breast"), default="colon")
    parser.add_argument("--json", type=output_file, help="keep the raw values here")
    arguments = parser.parse_args()
    dataset, keys = arguments.dataset, {}
    with tempfile.TemporaryDirectory() as folder:
        if not os.environ.get("D2L_DATA"):
            from d2l_study.data.synthetic_tissue import write_breast, write_colon

            keys = {"root": f"{folder}/data"}
            if dataset == "colon":
                write_colon(Path(keys["root"]), 100, nuclei=224)
            else:
                write_breast(Path(keys["root"]), 6)
        lines = {}
        lines["first: decoded and cut"] = result(start(dataset, keys, f"{folder}/one"))
        lines["later: mapped"] = result(start(dataset, keys, f"{folder}/one"))
        processes = [start(dataset, keys, f"{folder}/four") for _ in range(4)]
        found = [result(process) for process in processes]
        lines["together: slowest of four"] = max(found, key=lambda values: values["wall_s"])  # type: ignore[arg-type,return-value]
        checksums = {values["checksum"] for values in (*lines.values(), *found)}
    source = "the archive" if os.environ.get("D2L_DATA") else "synthetic images"
    first = lines["first: decoded and cut"]
    print(f"{dataset}, {source}: {first['bags']} images, {first['instances']} patches, {first['pool_mb']} MiB")
    print(f"one checksum in all processes: {len(checksums) == 1}\n")
    print("| | wall s | processor s | own MiB | shareable MiB |\n|---|---:|---:|---:|---:|")
    for name, v in lines.items():
        print(f"| {name} | {v['wall_s']} | {v['cpu_s']} | {v['private_mb']} | {v['shared_mb']} |")
    if arguments.json:
        arguments.json.write_text(json.dumps({"dataset": dataset, "source": source, "lines": lines}, indent=1))


if __name__ == "__main__":
    main()
