"""What is in the cache is what was kept there, or it is made again, with a line that says so; never used unseen."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_mnist import small, write_set  # noqa: F401

from d2l_study.data import ColonBags, ManifestBags, SyntheticColonBags, decoded_cache, mnist
from d2l_study.data.cutting import BagSource, ImageCut, cached_collection, cut_patches
from d2l_study.data.decoded_cache import AlteredError, check_once, read_meta, show_entries, write_meta
from d2l_study.data.synthetic_tissue import write_colon
from d2l_study.errors import UserError


def of_mnist(folder):
    files = write_set(folder / "set")
    return lambda: mnist.load(files, verify=False)


def of_colon(folder):
    write_colon(folder, 4, side=60, nuclei=5.0)
    return ColonBags(root=str(folder)).load_pool


def of_synthetic(folder):
    return SyntheticColonBags(images=6, side=60, nuclei=4.0).load_pool


def of_manifest(folder):
    rows = ["bag,label,path"]
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(f"b{i},{i % 2},{i}.png")
    (folder / "own.csv").write_text("\n".join(rows))
    return ManifestBags(path=str(folder / "own.csv")).load_pool


@pytest.fixture(params=[of_mnist, of_colon, of_synthetic, of_manifest])
def load(request, tmp_path, cache, small):  # noqa: F811
    return request.param(tmp_path)


@pytest.fixture
def fresh(monkeypatch):
    """Forgets what was checked, as a new process has not checked it."""
    return lambda: monkeypatch.setattr(decoded_cache, "_checked", {})


def entry(cache):
    """The folder of the only entry with instances."""
    (path,) = cache.glob("*/instances.npy")
    return path.parent


def flip(path, place):
    """Turns one bit, and puts the times of the file back."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_one_flipped_bit_anywhere_is_found_and_mended(load, cache, fresh, capsys):
    pool = load()
    pixels, checksum, folder = np.array(pool.instances), pool.checksum, entry(cache)
    del pool
    names = [path.name for path in folder.iterdir()]
    assert len(names) == 3
    for name in names:
        size = (folder / name).stat().st_size
        for place in (size // 3, size - 2):
            fresh()
            flip(folder / name, place)
            found = load()
            assert np.array_equal(found.instances, pixels) and found.checksum == checksum
            said = capsys.readouterr().err
            assert said.startswith(f"warning: cache: {folder}: ") and name in said and said.count("\n") == 1
            assert "it is made again" in said
            fresh()
            load()
            assert capsys.readouterr().err == ""


def test_pixels_that_were_turned_upside_down_are_not_used(load, cache, fresh, capsys):
    first = load()
    pixels, folder = np.array(first.instances), entry(cache)
    del first
    fresh()
    array = np.load(folder / "instances.npy", mmap_mode="r+")
    array[...] = array[..., ::-1, :].copy()
    array.flush()
    del array
    show_entries()
    assert f"{folder.name}: instances.npy is not what was kept; it is made again when it is used" in (
        capsys.readouterr().out
    )
    assert np.array_equal(load().instances, pixels)
    assert "instances.npy is not what was kept; it is made again" in capsys.readouterr().err
    show_entries()
    said = capsys.readouterr().out
    assert "read and found as kept" in said and "is not what" not in said


def test_a_process_looks_once_and_again_when_a_file_changed(load, cache, monkeypatch):
    looked, digest = [], decoded_cache._digest
    monkeypatch.setattr(decoded_cache, "_digest", lambda path: looked.append(path) or digest(path))
    load()
    looked.clear()
    load()
    assert not looked
    path = entry(cache) / "instances.npy"
    os.utime(path, (1, 1))
    load()
    assert path in looked


def test_an_entry_of_an_earlier_version_is_not_used(load, cache, fresh, capsys):
    checksum = load().checksum
    meta = entry(cache) / "meta.json"
    values = json.loads(meta.read_text())
    del values["seal"], values["files"]
    meta.write_text(json.dumps(values))
    fresh()
    show_entries()
    assert "1 of an earlier version" in capsys.readouterr().out
    assert load().checksum == checksum
    assert "meta.json is damaged; it is made again" in capsys.readouterr().err


def test_meta_of_another_kind_is_altered(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"abc")
    write_meta(tmp_path, {"checksum": "c"})
    assert read_meta(tmp_path)["checksum"] == "c"
    check_once(tmp_path, read_meta(tmp_path))
    for text in ("", "[]", "3", '{"seal": "x"}', "{", '"a"', "\xff"):
        (tmp_path / "meta.json").write_text(text, encoding="latin-1")
        with pytest.raises(AlteredError):
            read_meta(tmp_path)


def test_synthetic_images_that_were_changed_are_drawn_again(tmp_path, cache, capsys):
    data = SyntheticColonBags(images=6, side=60, nuclei=4.0)
    checksum = data.load_pool().checksum
    image = min(cache.rglob("*.bmp"))
    flip(image, 2000)
    os.utime(image, (1, 1))
    assert data.load_pool().checksum == checksum
    assert f"{image.name} is not what was kept; it is made again" in capsys.readouterr().err
    image.unlink()
    assert data.load_pool().checksum == checksum
    assert f"{image.name} is missing; it is made again" in capsys.readouterr().err


# ---- disks without room
DRIVER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import test_decoded_cache, test_mnist
from d2l_study.errors import UserError
load = test_decoded_cache.of_colon(Path({folder!r})) if {what!r} == "colon" else __import__(
    "d2l_study.data", fromlist=["MnistBags"]).MnistBags().load_pool
try:
    load()
except UserError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["colon", "mnist"])
def test_a_cache_on_a_full_disk_is_an_error_in_a_line_not_a_signal(tmp_path, what):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40k" if what == "colon" else "size=9m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here")
    try:
        code = DRIVER.format(path=sys.path, folder=str(tmp_path / "images"), what=what)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"D2L_CACHE": str(disk)}
        )
        assert done.returncode == 0, done.stderr
        assert (
            done.stdout.count("\n") == 1
            and str(disk) in done.stdout
            and "no room for " in done.stdout
            and "No space left on device" in done.stdout
        )
        assert done.stdout.endswith("make room there, or name another cache folder in D2L_CACHE\n")
        assert not [path for path in disk.rglob("*") if path.is_file() and path.stat().st_size]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


@pytest.mark.parametrize("where", ["posix_fallocate", "np.savez", "np.save", "write_text"])
def test_a_disk_that_fills_at_any_step_leaves_nothing_half_made(load, cache, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    module, name = {"posix_fallocate": (os, "posix_fallocate"), "np.savez": (np, "savez"), "np.save": (np, "save"),
                    "write_text": (type(cache), "write_text")}[where]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        try:
            load()
        except UserError as error:
            assert "no room" in str(error) and str(error).endswith("name another cache folder in D2L_CACHE")
        else:
            assert where in ("np.savez", "np.save")  # MNIST saves no .npz, the others no .npy that way
            return
    assert not list(cache.rglob("instances.npy")) and not list(cache.rglob("*.json-*"))
    load()


def test_what_a_killed_process_left_goes_when_the_entry_is_made(load, cache, fresh):
    load()
    folder = entry(cache)
    left = folder.with_name(f"{folder.name}-0a1b2c3d")
    left.mkdir()
    (left / "instances.npy").write_bytes(b"half")
    (folder / "meta.json").unlink()
    load()
    assert not left.exists() and folder.is_dir()


# ---- what is in it
def test_even_patches_lie_alike_about_every_whole_centre_and_odd_ones_as_before():
    image = np.arange(64, dtype=np.uint8)[None, :, None].repeat(64, 0).repeat(3, 2)
    for side in (4, 5, 6, 16, 17):
        xy = np.stack([np.arange(20.0, 30), np.arange(20.0, 30)], axis=1)
        first = cut_patches(image, xy, (side, side))[:, 0, 0, 0].astype(int)
        assert (first - np.arange(20, 30)).tolist() == [-(side // 2)] * 10
        between = cut_patches(image, xy + (0.5 if side % 2 == 0 else 0.3), (side, side))[:, 0, 0, 0].astype(int)
        assert (between - first == (1 if side % 2 == 0 else 0)).all()


def test_only_the_content_of_even_patches_at_whole_centres_changed(tmp_path, cache):
    """Their checksum, which is in ids, is another; that of odd ones, and of even grids, is what it was."""
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    whole = np.array([[9.0, 9.0], [10.0, 10.0], [11.0, 13.0]])

    def checksum(xy, side):
        cut = ImageCut(path, xy, np.zeros(len(xy), np.int8))
        bags = [BagSource("a", 1, "a", (cut,))]
        return cached_collection("t", [path], {"xy": xy.tolist()}, lambda _: bags, (side, side)).checksum

    before = {"odd": "53251afddc117258", "grid": "90de27dd800443e6", "even": "58ead7ce8df6db96"}
    assert checksum(whole, 9) == before["odd"]
    assert checksum(whole + 0.5, 8) == before["grid"]
    assert checksum(whole, 8) != before["even"]
