"""A disk without room is an error in a line, before anything is mapped, and leaves no file."""

import errno
import os
import subprocess

import numpy as np
import pytest

from d2l_study.data.memory_maps import disk_full_as_user_error, new_array
from d2l_study.errors import UserError

ADVICE = "name another folder with --out"


@pytest.fixture
def disk(tmp_path):
    """A disk of one megabyte (tmpfs), where the rights of this process allow it."""
    point = tmp_path / "disk"
    point.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(point)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"no right to mount a tmpfs here: {made.stderr.strip()}")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=False)


def test_a_new_array_is_a_npy_file_whose_room_is_there(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"something older")
    array = new_array(path, (300, 5, 7), np.float32, ADVICE)
    assert path.stat().st_blocks * 512 >= 300 * 5 * 7 * 4
    array[...] = np.arange(300 * 5 * 7).reshape(300, 5, 7)
    array.flush()
    np.testing.assert_array_equal(np.load(path), np.arange(300 * 5 * 7, dtype=np.float32).reshape(300, 5, 7))


def test_a_full_disk_is_said_with_what_is_needed_and_free(disk):
    with pytest.raises(UserError) as error:
        new_array(disk / "a.npy", (3_000_000,), np.uint8, ADVICE)
    assert str(error.value) == (f"{disk}: no room for 3 MB: No space left on device (1.05 MB are free); {ADVICE}")
    assert not list(disk.iterdir())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_said_wherever_it_shows(tmp_path, monkeypatch, code):
    def full(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=f"no room for 12 bytes: {os.strerror(code)}.*; {ADVICE}"):
        new_array(tmp_path / "a.npy", (3,), np.float32, ADVICE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lacking", [AttributeError(), OSError(errno.EOPNOTSUPP, "not supported")])
def test_where_nothing_can_be_reserved_zeros_are_written(tmp_path, monkeypatch, lacking):
    def raises(*_):
        raise lacking

    monkeypatch.setattr(os, "posix_fallocate", raises)
    array = new_array(tmp_path / "a.npy", (1500, 1000), np.uint8, ADVICE)
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes and not array.any()


def test_other_errors_stay_what_they_are(tmp_path):
    with pytest.raises(PermissionError), disk_full_as_user_error(tmp_path, ADVICE):
        raise PermissionError(errno.EACCES, "no")
    with pytest.raises(FileNotFoundError):
        new_array(tmp_path / "nowhere" / "a.npy", (3,), np.uint8, ADVICE)
