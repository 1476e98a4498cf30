"""A source file is read once for each state in which a process meets it; another state is read again."""

import hashlib
import os
from pathlib import Path

import pytest

from d2l_study.data import decoded_cache
from d2l_study.data.decoded_cache import source_digest


@pytest.fixture
def reads(monkeypatch):
    """The files that were hashed, in order."""
    found = []
    digest = hashlib.file_digest

    def noted(file, name):
        found.append(Path(file.name).name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return found


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_cache, "_digests", {})
    path = tmp_path / "digits"
    path.write_bytes(b"0123")
    return path


def later(monkeypatch):
    """As if the files had been written long ago."""
    monkeypatch.setattr(decoded_cache, "_SETTLED", -1)


def test_a_file_is_read_once_by_every_name(source, reads, monkeypatch):
    later(monkeypatch)
    other = source.with_name("link")
    other.symlink_to(source)
    assert source_digest(source) == source_digest(source) == source_digest(other) == hashlib.sha256(b"0123").digest()
    assert reads == ["digits"]


def test_an_altered_file_is_noticed_though_its_size_and_time_are_as_before(source, reads, monkeypatch):
    later(monkeypatch)
    before, times = source_digest(source), source.stat()
    while source.stat().st_ctime_ns == times.st_ctime_ns:  # until the clock of the file system has moved on
        source.write_bytes(b"0124")
        os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source_digest(source) == hashlib.sha256(b"0124").digest() != before
    other = source.with_name("new")
    other.write_bytes(b"0125")
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(source)
    assert source_digest(source) == hashlib.sha256(b"0125").digest()
    assert len(reads) == 3


def test_what_was_written_just_now_may_be_written_again_at_the_same_time(source, reads):
    for _ in range(2):
        source_digest(source)
    assert len(reads) == 2


def test_a_file_that_is_gone_is_an_error_though_it_was_read(source, monkeypatch):
    later(monkeypatch)
    source_digest(source)
    source.unlink()
    with pytest.raises(FileNotFoundError):
        source_digest(source)
