"""Labelling a whole-slide image: tiles and megabytes a second against loops that only read, and the memory it needs.

    python benchmarks/slide_labelling.py [--folder DIR] [--width 100000] [--height 80000] [--size 224] [--mpp 0.5]
        [--peer PYTHON] [--tiles 3000] [--json FILE]

The slide is made first: an Aperio-like pyramid of 0.25 µm (level 0, 1/4, 1/16 …) whose JPEG tiles are drawn tissue,
repeated, so that it takes no more than a minute. Tiles of `size` pixels at `mpp` µm are then read

    openslide  by a plain loop of `read_region` at the best level and `resize`, one thread
    tiffslide  the same, where the Python of --peer has tiffslide
    ours       by `PatchReader`, one thread
    label      by `label` itself, with a model of patches of that size, and all outputs

Each is a process of its own; loops read the first `--tiles` of a grid, `label` handles all of tissue. MB: pixels of the
tiles as they come out, 3 bytes each. `own` is the memory that only the process has (`own_memory.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from options import output_file, whole_number
from own_memory import OwnMemory

MPP, STEP, TILE = 0.25, 4, 256

LOOP = """
import json, sys, time
from PIL import Image
import {package} as package
path, side, size, tiles = sys.argv[1], *map(int, sys.argv[2:])
slide = getattr(package, {name!r})(path)
across = slide.dimensions[0] // side
level = slide.get_best_level_for_downsample(side / size)
there = round(side / slide.level_downsamples[level])
begin = time.perf_counter()
total = 0
for k in range(tiles):
    place = (k % across * side, k // across * side)
    patch = slide.read_region(place, level, (there, there)).convert("RGB").resize((size, size), Image.Resampling.BOX)
    total += patch.getpixel((0, 0))[0]
print(json.dumps({{"tiles": tiles, "seconds": time.perf_counter() - begin, "check": total}}))
"""


def make(path: Path, width: int, height: int) -> None:
    """The slide: JPEG tiles of drawn tissue, encoded once and written again and again."""
    import io

    import tifffile
    from PIL import Image

    from d2l_study.data.colon import find_images
    from d2l_study.data.synthetic_tissue import write_colon

    write_colon(path.parent / "drawn", 16, side=TILE)
    pictures = [np.asarray(Image.open(image.image).convert("RGB")) for image in find_images(path.parent / "drawn")]
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        size, first = (width, height), True
        while max(size) > 512:
            encoded = []
            for picture in pictures:
                out = io.BytesIO()
                Image.fromarray(picture).save(out, "JPEG", quality=85, subsampling=2)
                encoded.append(out.getvalue())
            count = -(-size[0] // TILE) * -(-size[1] // TILE)
            described = f"Aperio Image Library\r\n{size[0]}x{size[1]}|AppMag = 40|MPP = {MPP}" if first else None
            file.write(
                (encoded[(7 * k + k // 97) % 16] for k in range(count)), shape=(size[1], size[0], 3), dtype=np.uint8,
                tile=(TILE, TILE), photometric="ycbcr", subsampling=(2, 2), compression="jpeg", metadata=None,
                description=described, subfiletype=0 if first else 1,
            )  # fmt: skip
            size, first = (size[0] // STEP, size[1] // STEP), False


def work(what: str, folder: Path, slide: Path, size: int, mpp: float, tiles: int) -> dict[str, object]:
    import torch

    torch.set_num_threads(1)
    begin = time.perf_counter()
    with OwnMemory() as memory:
        if what == "label":
            found = _label(folder, slide, mpp)
        else:
            from d2l_study.slides.opening import open_slide
            from d2l_study.slides.resolution import PatchReader

            with open_slide(slide) as opened:
                reader = PatchReader(opened, mpp, size)
                side = round(reader.side[0])
                across = opened.width // side
                begin = time.perf_counter()
                for first in range(0, tiles, 64):
                    number = np.arange(first, min(first + 64, tiles))
                    reader.read(np.stack([number % across, number // across], axis=1) * side)
            found = {"tiles": tiles}
    found["seconds"] = found.get("seconds") or time.perf_counter() - begin
    return {**found, "own_mb": memory.own_mb, "peak_mb": memory.peak_mb}


def _label(folder: Path, slide: Path, mpp: float) -> dict[str, object]:
    from d2l_study.cli import main as command

    out = folder / "scores"
    words = ["label", "--root", str(folder / "runs"), "--run", "5d5d5d5d", str(slide), "--out", str(out)]
    begin = time.perf_counter()
    if command([*words, "--mpp", str(mpp)]) != 0:
        raise SystemExit("error: label failed")
    seconds = time.perf_counter() - begin
    about = json.loads((out / f"{slide.stem}.json").read_text())
    return {"tiles": about["tiles"]["count"], "seconds": seconds, "scoring": about["seconds"],
            "bytes": sum(path.stat().st_size for path in out.iterdir())}  # fmt: skip


def model(folder: Path, size: int) -> None:
    """A model of patches of that size, hardly trained."""
    from d2l_study.data import SyntheticColonBags
    from d2l_study.data.colon import find_images
    from d2l_study.data.manifest import ManifestBags
    from d2l_study.learning import TeacherConfig
    from d2l_study.study.space.resources import Resources
    from d2l_study.study.trial.trial import run_trial
    from d2l_study.study.trial.trial_request import TrialRequest

    SyntheticColonBags(images=8, side=2 * size, nuclei=60).load_pool()
    (written,) = Path(os.environ["D2L_CACHE"]).glob("colon_synthetic-images-*[0-9a-f]")
    rows = [f"{image.image},{k % 2},{k}" for k, image in enumerate(find_images(written))]
    table = folder / "images.csv"
    table.write_text("path,label,bag\n" + "\n".join(rows) + "\n")
    data = ManifestBags(path=str(table), cut="grid", patch_size=size, folds=4)
    teacher = TeacherConfig(extractor="lenet_histology", steps=1, eval_every=1)
    request = TrialRequest(
        root=str(folder / "runs"), study="s", config_id="5d" * 10, label="none", stage="teacher",
        sections={"data": data.to_dict(), "teacher": teacher.to_dict()}, replicates=(0,), base_seed=1,
        data_checksum=data.load_pool().checksum, resources=Resources().to_dict(), keep_weights="all",
        code_version="benchmark",
    )  # fmt: skip
    if run_trial(request) != {0: "done"}:
        raise SystemExit("error: no model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the slide is made; else the system's temporary folder")
    parser.add_argument("--width", type=whole_number, default=100_000)
    parser.add_argument("--height", type=whole_number, default=80_000)
    parser.add_argument("--size", type=whole_number, default=224)
    parser.add_argument("--mpp", type=float, default=0.5)
    parser.add_argument("--tiles", type=whole_number, default=3000)
    parser.add_argument("--peer", help="a Python that has tiffslide")
    parser.add_argument("--json", type=output_file, help="keep the raw values here")
    parser.add_argument("--line", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size, tiles = arguments.size, arguments.tiles
    if arguments.line:
        what, folder, path = arguments.line
        print(json.dumps(work(what, Path(folder), Path(path), size, arguments.mpp, tiles)))
        return
    lines: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder, slide = Path(name), Path(name) / "slide.svs"
        os.environ["D2L_CACHE"] = str(folder / "cache")
        begin = time.perf_counter()
        make(slide, arguments.width, arguments.height)
        model(folder, size)
        print(f"slide of {arguments.width:,}×{arguments.height:,}: {slide.stat().st_size / 1e9:.2f} GB, made in "
              f"{time.perf_counter() - begin:.0f} s")  # fmt: skip
        side = round(size * arguments.mpp / MPP)
        loops = [("openslide", sys.executable, "OpenSlide")]
        loops += [("tiffslide", arguments.peer, "TiffSlide")] if arguments.peer else []
        for package, python, kind in loops:
            words = [python, "-c", LOOP.format(package=package, name=kind), slide, side, size, tiles]
            lines[package] = _ended(words)
            _show(package, lines[package], size)
        for what in ("ours", "label"):
            words = [sys.executable, __file__, "--size", size, "--mpp", arguments.mpp, "--tiles", tiles, "--line", what,
                     folder, slide]  # fmt: skip
            lines[what] = _ended(words)
            _show(what, lines[what], size)
    if arguments.json:
        about = {key: getattr(arguments, key) for key in ("width", "height", "size", "mpp", "tiles")}
        arguments.json.write_text(json.dumps({**about, "lines": lines}, indent=1) + "\n")


def _ended(words: list[object]) -> dict[str, object]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([str(w) for w in words], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(ended.stdout.splitlines()[-1]))


def _show(what: str, found: dict[str, object], size: int) -> None:
    rate = float(found["tiles"]) / float(found["seconds"])  # type: ignore[arg-type]
    more = f", own {found['own_mb']} MB, peak {found['peak_mb']} MB" if "own_mb" in found else ""
    print(f"{what:<10} {found['tiles']:>8,} tiles in {float(found['seconds']):7.1f} s: {rate:7.0f} tiles/s, "  # type: ignore[arg-type]
          f"{rate * 3 * size**2 / 1e6:6.1f} MB/s{more}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
