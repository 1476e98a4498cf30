"""The vectors are copied once per machine, in pieces, and what lies in the cache is what was kept."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import feature_files as files
import numpy as np
import pytest

from d2l_study.data import FeatureBags, decoded_cache
from d2l_study.data.decoded_cache import CHECKED
from d2l_study.data.features import feature_file, opening, store
from d2l_study.data.features.moments import Moments
from d2l_study.errors import UserError


@pytest.fixture
def table(tmp_path, cache):
    found = files.cohort()
    for slide, _ in found:
        files.trident(tmp_path / "features", slide)
    return files.table(tmp_path / "t.csv", found)


@pytest.fixture
def new_process(monkeypatch):
    """Forget what this process has checked, as a new one would."""
    return lambda: monkeypatch.setattr(decoded_cache, "_checked", {})


def load(table, **keys):
    return FeatureBags(path=str(table), **keys).load_pool()


def array_of(pool):
    return Path(pool.instances.filename)


def test_later_loads_open_no_feature_file(table, monkeypatch):
    first = load(table)

    def opened(*args):
        raise AssertionError("a feature file is opened")

    monkeypatch.setattr(opening, "open_features", opened)
    monkeypatch.setattr("d2l_study.data.features.checks.open_features", opened)
    again = load(table)
    assert again.checksum == first.checksum and array_of(again) == array_of(first)


def test_moved_and_touched_files_make_no_second_copy(table, tmp_path, cache):
    first = load(table)
    for path in (tmp_path / "features").iterdir():
        os.utime(path, (1, 1))
    again = load(table)
    assert again.checksum == first.checksum and array_of(again) == array_of(first)
    assert len(list(cache.glob("features-*/instances.npy"))) == 1
    assert not list(cache.glob("features-*-????????"))


def test_another_vector_makes_another_copy_and_checksum(table, tmp_path):
    first = load(table).checksum
    slide = files.make_slide("s3", 9, positive=True)
    slide.vectors[8, 11] += 1e-3
    files.trident(tmp_path / "features", slide)
    assert load(table).checksum != first


def test_a_flipped_bit_is_found_by_the_next_process(table, new_process, capsys):
    pool = load(table)
    path, kept = array_of(pool), np.array(pool.instances)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    new_process()
    assert np.array_equal(load(table).instances, kept)
    assert "instances.npy is not what was kept; it is made again" in capsys.readouterr().err


def test_large_arrays_are_read_once_per_machine_and_state(table, new_process, monkeypatch):
    """`LARGE` is set below the array, so that it counts as large."""
    monkeypatch.setattr(decoded_cache, "LARGE", 1000)
    read = []
    digest = decoded_cache._digest
    monkeypatch.setattr(decoded_cache, "_digest", lambda path: read.append(path.name) or digest(path))
    pool = load(table)
    assert "instances.npy" not in read  # it was hashed as it was written
    read.clear()
    for _ in range(2):
        new_process()
        load(table)
    assert not {"instances.npy", "moments.npy"} & {*read}
    os.utime(array_of(pool))  # another state: it is read again, and then known once more
    for _ in range(2):
        new_process()
        load(table)
    assert read.count("instances.npy") == 1
    (notes,) = [json.loads(p.read_text()) for p in decoded_cache.cache_dir().glob(f"features-*/{CHECKED}")]
    assert "instances.npy" in str(notes)


def test_a_large_array_that_was_written_to_is_found(table, new_process, monkeypatch, capsys):
    monkeypatch.setattr(decoded_cache, "LARGE", 1000)
    pool = load(table)
    kept = np.array(pool.instances)
    with array_of(pool).open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x55")
    new_process()
    assert np.array_equal(load(table).instances, kept)
    assert "instances.npy is not what was kept" in capsys.readouterr().err


def test_the_data_command_reads_large_arrays_whole(table, new_process, monkeypatch, capsys):
    monkeypatch.setattr(decoded_cache, "LARGE", 1000)
    path = array_of(load(table))
    times = path.stat()
    real = decoded_cache._state
    state = real(path)
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\x55")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    monkeypatch.setattr(decoded_cache, "_state", lambda p: state if p == path else real(p))  # as a disk that fails
    new_process()
    load(table)
    new_process()
    decoded_cache.show_entries()
    assert "instances.npy is not what was kept" in capsys.readouterr().out


def test_what_a_killed_copy_left_is_cleared_and_made_again(table, tmp_path, cache):
    """A process is killed while it copies; the next one finds no entry, removes the rest and makes it."""
    code = (
        "import os, signal, sys\n"
        "from d2l_study.data.features import store\n"
        "from d2l_study.data import FeatureBags\n"
        "add = store._add\n"
        "def killed(*args):\n"
        "    add(*args)\n"
        "    killed.count = getattr(killed, 'count', 0) + 1\n"
        "    if killed.count == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "store._add = killed\n"
        f"FeatureBags(path={str(table)!r}).load_pool()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], env={**os.environ, "D2L_CACHE": str(cache)}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert len(list(cache.glob("features-*-????????"))) == 1 and not list(cache.glob("features-*/meta.json"))
    assert len(load(table).instances) == sum((5, 9, 30, 1)[i % 4] for i in range(10))
    assert not list(cache.glob("features-*-????????"))


def test_several_processes_copy_once(table, cache):
    code = (
        "from d2l_study.data.features import store\n"
        "from d2l_study.data import FeatureBags\n"
        "copy = store._copy\n"
        "def told(*args):\n"
        "    print('copied', flush=True)\n"
        "    return copy(*args)\n"
        "store._copy = told\n"
        f"print(FeatureBags(path={str(table)!r}).load_pool().checksum)\n"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "D2L_CACHE": str(cache)},
                         stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]  # fmt: skip
    said = "".join(process.communicate(timeout=120)[0] for process in started)
    assert said.count("copied") == 1 and len(set(said.split()) - {"copied"}) == 1


def test_a_disk_without_room_is_a_line_before_anything_is_copied(table, cache, monkeypatch):
    real = os.statvfs
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result((*real(path)[:4], 0, *real(path)[5:10])))
    monkeypatch.setattr(store, "_write", lambda *args: pytest.fail("something is copied"))
    with pytest.raises(UserError, match=r"no room for .*No space left on device .*are free\); make room there"):
        load(table)
    assert not list(cache.glob("features-*/*.npy"))


def test_a_disk_that_fills_up_while_it_copies_is_a_line_too(table, cache, monkeypatch):
    import errno

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "_write", full)
    with pytest.raises(UserError, match=r"no room: No space left on device .*are free\); make room there"):
        load(table)
    assert not list(cache.glob("features-*/*.npy"))


def test_a_file_that_grows_while_it_is_copied_is_named(table, tmp_path, monkeypatch):
    describe = store._copy

    def grown(found, *args):
        files.trident(tmp_path / "features", files.make_slide("s2", 3))
        return describe(found, *args)

    monkeypatch.setattr(store, "_copy", grown)
    with pytest.raises(UserError, match=r"s2.h5: (3 vectors, but 30 when it was opened|cannot be read)"):
        load(table)


@pytest.mark.slow
def test_copying_holds_a_few_pieces_whatever_the_size_of_a_slide(tmp_path, cache):
    """A child's own memory (not that of mapped files) grows by much less than the slide's 200 MB."""
    slides = [(files.make_slide(f"s{i}", 5), i % 2) for i in range(5)]
    large = np.zeros((100_000, 1024), np.float16)
    large[::7, ::3] = 1
    slides.append((files.Slide("large", large, np.zeros((100_000, 2), np.int64), np.zeros(100_000, np.int8)), 1))
    for slide, _ in slides:
        files.nnmil(tmp_path / "features", slide if slide.name == "large" else files.make_slide(slide.name, 5, 1024))
    table = files.table(tmp_path / "t.csv", slides)
    code = (
        "import threading, time\n"
        "from d2l_study.data import FeatureBags\n"
        "import h5py\n"
        "def own():\n"
        "    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('RssAnon'))\n"
        "most, before, ended = 0, own(), False\n"
        "def watch():\n"
        "    global most\n"
        "    while not ended:\n"
        "        most = max(most, own()); time.sleep(0.002)\n"
        "watching = threading.Thread(target=watch); watching.start()\n"
        f"pool = FeatureBags(path={str(table)!r}).load_pool()\n"
        "ended = True; watching.join()\n"
        "print(most - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "D2L_CACHE": str(cache)}, check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert int(done.stdout) * 1024 < 100e6


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_moments_are_those_of_all_vectors_far_from_zero_too(kind, rng):
    values = (rng.normal(3000.0 if kind != np.float16 else 30.0, 0.5, (5000, 7))).astype(kind)
    values[:, 3] = 7.0
    found = Moments(7)
    for first in range(0, 5000, 640):
        found.add(values[first : first + 640])
    exact = values.astype(np.longdouble)
    assert np.allclose(found.mean, exact.mean(axis=0).astype(float), rtol=1e-13)
    assert np.allclose(found.scatter, ((exact - exact.mean(axis=0)) ** 2).sum(axis=0).astype(float), rtol=1e-9)
    assert found.scatter[3] == 0 and found.strange == 0


def test_vectors_that_are_no_numbers_are_counted_wherever_they_lie(rng):
    values = rng.normal(size=(3000, 4)).astype(np.float32)
    strange = [0, 5, 1400, 2999]
    values[strange, [0, 1, 2, 3]] = [np.nan, np.inf, -np.inf, np.nan]
    found = Moments(4)
    for first in range(0, 3000, 500):
        found.add(values[first : first + 500])
    assert (found.strange, found.first_strange) == (4, 0)


def test_pieces_are_small_and_whole(tmp_path):
    slide = files.make_slide("s", 5000, width=600)
    for path in (files.clam_h5(tmp_path, slide), files.npy(tmp_path, slide), files.clam_pt(tmp_path, slide)):
        opened = opening.open_features(path)
        got = [piece.copy() for piece in opened.pieces()]
        assert max(piece.nbytes for piece in got) <= feature_file.PIECE
        assert len(got) > 1 and np.array_equal(np.concatenate(got), slide.vectors)
