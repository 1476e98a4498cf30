"""What a cohort of feature vectors costs before training: copied once into the cache, against reading it and `cp`.

    python benchmarks/feature_store.py [--folder DIR] [--slides 200] [--instances 20000] [--width 1024]
        [--layout trident|stamp|pt] [--json FILE]

By default 8 GB of float16 as TRIDENT writes them (HDF5 in chunks of one row): three times as much room is needed in the
folder. Each line is a process of its own; before it, what is to be read is dropped from the page cache, where it says
`from disk`. `read` reads all files in pieces of 8 MB, `copy` is `cp`, `built` is `load_pool` with an empty cache,
`later` with a full one. `own` is the memory that only the process has (RssAnon), the most that was seen. Everything
that was made is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from options import output_file

CHILD = """
import json, sys, time
from pathlib import Path
from own_memory import OwnMemory

what, source, target = sys.argv[1:]
if what == "load":
    from d2l_study.data import FeatureBags
    import h5py, torch
begin, cpu = time.perf_counter(), time.process_time()
found = {}
with OwnMemory() as memory:
    if what == "read":
        buffer = bytearray(8 << 20)
        for path in sorted(Path(source).iterdir()):
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
    else:
        pool = FeatureBags(path=source, root=target).load_pool()
        found = {"instances": len(pool.instances), "bags": len(pool.bags), "checksum": pool.checksum}
wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
used = {"own_mb": memory.own_mb, "peak_mb": memory.peak_mb}
print(json.dumps({"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), **used, **found}))
"""


def make(folder: Path, slides: int, instances: int, width: int, layout: str) -> Path:
    """The cohort: files in `features`, and the table, which is returned."""
    (folder / "features").mkdir()
    rng = np.random.default_rng(1)
    block = rng.standard_normal((4096 + slides, width)).astype(np.float16)
    coords = np.stack([np.arange(instances) % 200, np.arange(instances) // 200], axis=1) * 256
    for s in range(slides):
        part = np.concatenate([block[s : s + 4096]] * -(-instances // 4096))[:instances]
        part[0] = rng.standard_normal(width)  # no two slides are alike
        path = folder / "features" / f"slide{s:04}"
        if layout == "pt":
            import torch

            torch.save(torch.from_numpy(part), path.with_suffix(".pt"))
            continue
        with h5py.File(path.with_suffix(".h5"), "w") as file:
            if layout == "stamp":
                file["feats"], file["coords"] = part, coords * 0.5
                file.attrs.update({"unit": "um", "tile_size_um": 256.0, "extractor": "some", "feat_type": "tile"})
            else:
                file.create_dataset("features", data=part, chunks=(1, width), maxshape=(None, width))
                file["coords"] = coords
                file["coords"].attrs.update({"patch_size": 256, "patch_size_level0": 512, "target_magnification": 20})
    table = folder / "slides.csv"
    table.write_text("slide_id,label\n" + "".join(f"slide{s:04},{s % 2}\n" for s in range(slides)))
    return table


def forget(folder: Path) -> None:
    """Write what is still to be written, and drop the files below a folder from the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def child(what: str, source: Path, target: Path, cache: Path) -> dict[str, object]:
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "D2L_CACHE": str(cache), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run([sys.executable, "-c", CHILD, what, str(source), str(target)], env=environment, check=True,
                           stdout=subprocess.PIPE, text=True)  # fmt: skip
    return json.loads(ended.stdout)


def copied(source: Path, target: Path) -> dict[str, object]:
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(target)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the cohort is made; else the system's temporary folder")
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--instances", type=int, default=20_000, help="of each slide")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layout", choices=("trident", "stamp", "pt"), default="trident")
    parser.add_argument("--json", type=output_file, help="keep the raw values here")
    arguments = parser.parse_args()
    size = arguments.slides * arguments.instances * arguments.width * 2
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free
        if free < 3.2 * size:
            raise SystemExit(f"error: {folder}: {free / 1e9:.0f} GB are free, {3.2 * size / 1e9:.0f} are needed")
        table = make(folder, arguments.slides, arguments.instances, arguments.width, arguments.layout)
        features, cache = folder / "features", folder / "cache"
        lines: dict[str, dict[str, object]] = {}
        forget(features)
        lines["read, from disk"] = child("read", features, folder, cache)
        forget(features)
        lines["copy, from disk"] = copied(features, folder / "copy")
        forget(features)
        lines["built, from disk"] = child("load", table, features, cache)
        os.sync()
        lines["later"] = child("load", table, features, cache)
        shutil.rmtree(cache)
        child("read", features, folder, cache)
        lines["copy, from memory"] = copied(features, folder / "copy")
        child("read", features, folder, cache)
        lines["built, from memory"] = child("load", table, features, cache)
    print(f"{arguments.slides} slides × {arguments.instances:,} × {arguments.width:,} float16 ({arguments.layout}): "
          f"{size / 1e9:.2f} GB")  # fmt: skip
    for what, values in lines.items():
        wall = float(values["wall_s"])  # type: ignore[arg-type]
        more = f", {values['cpu_s']} s processor"
        more += f", own {values['own_mb']} MB, peak {values['peak_mb']} MB" if "own_mb" in values else ""
        rate = f" ({size / wall / 1e9:.2f} GB/s)" if what != "later" else ""
        print(f"  {what:<20} {wall:7.2f} s{rate}{more}")
    seconds = {what: float(values["wall_s"]) for what, values in lines.items()}  # type: ignore[arg-type]
    slower = max(seconds["read, from disk"], seconds["copy, from disk"])
    print(f"  built / the slower of read and copy, from disk: {seconds['built, from disk'] / slower:.2f}")
    print(f"  built / copy, from memory: {seconds['built, from memory'] / seconds['copy, from memory']:.2f}")
    if arguments.json:
        about = {"bytes": size, "layout": arguments.layout, "lines": lines}
        arguments.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
