"""Scores that outlive an interruption: a mapped array of logits beside the results, and how many of them are there.

    kept = ScoreCheckpoint.open(folder / "slide.logits.npy", identity, (rows, columns))
    for i in range(kept.done, kept.logits.size): ...
        kept.reached(i + 1)                     # now and then this is kept, at the latest by `kept.save()`
    kept.finish()                               # the file is whole, and gets its name

FILE.part         the array, its room on the disk reserved before it is mapped
FILE.part.json    `identity` (what is computed from what, and how), `done`, and `crc32` of the scores that are done;
                  `pixels`, a checksum that the user of this class gives of what they were computed from
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from d2l_study.atomic_files import PART, write_whole
from d2l_study.data.memory_maps import new_array
from d2l_study.errors import UserError
from d2l_study.inference.output_folder import MORE_ROOM, writing

SCORES_KEPT = " (what was scored is kept there, and the same command goes on from it)"

SAVE_SECONDS = 5.0
"""At most so much work is lost with a killed process."""
LONGEST_ENDING = f"{PART}.json{PART}"


class ScoreCheckpoint:
    """logits: float32, of any shape, to be filled in C order; done: how many are scored."""

    def __init__(
        self, path: Path, identity: Mapping[str, Any], logits: np.memmap, done: int, crc: int, pixels: int
    ) -> None:
        self.path, self.identity, self.logits, self.done, self.pixels = path, identity, logits, done, pixels
        self._crc, self._counted, self._saved = crc, done, time.monotonic()
        self._held: IO[bytes] | None = None

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any], shape: tuple[int, ...]) -> ScoreCheckpoint:
        """What an interrupted command left of the same work; else room for it, with nothing done.

        identity: plain values. `UserError` if the disk has no room, or another command is at this work.
        """
        part = _part(path)
        identity = json.loads(json.dumps(identity))
        with writing(path.parent):
            held = _hold(part, path) if part.exists() else None
            found = _left_over(part, identity, shape)
            if found is None:
                if held is not None:
                    held.close()
                drop(path)
                found = new_array(part, shape, np.float32, MORE_ROOM), 0, 0, 0
                held = _hold(part, path)
        kept = cls(path, identity, *found)
        kept._held = held
        return kept

    def reached(self, done: int) -> None:
        """The first `done` scores are there."""
        self.done = done
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Keep how far it is. The scores are on the disk before the note that says so."""
        with writing(self.path.parent):
            self.logits.flush()
            about = {"identity": self.identity, "done": self.done, "crc32": self.crc(), "pixels": self.pixels}
            write_whole(_note(self.path), json.dumps(about).encode())
        self._saved = time.monotonic()

    def begin_again(self) -> None:
        """What was scored is of other pixels."""
        self.done = self.pixels = self._crc = self._counted = 0

    def crc(self) -> int:
        """CRC-32 of the scores that are done."""
        self._crc = crc_of(self.logits, self._counted, self.done, self._crc)
        self._counted = self.done
        return self._crc

    def finish(self) -> None:
        """All are done: the array gets its name."""
        with writing(self.path.parent):
            self.logits.flush()
            _part(self.path).replace(self.path)
            self.close()

    def close(self, keep: bool = False) -> None:
        """Let go of the array; keep: what is scored stays, for the same work to go on."""
        if keep:
            self.save()
        else:
            drop(self.path)
        if self._held is not None:
            self._held.close()


class Progress:
    """Of a command that scores and then writes. scored: whether all is scored; what is left to do is to write it."""

    scored = False


@contextlib.contextmanager
def kept_until_written(kept: ScoreCheckpoint) -> Iterator[Progress]:
    """Let go of the scores at the end of the block, whose results are then written. If it fails, they are kept where
    the command was interrupted or all was scored, which a `UserError` then says."""
    progress = Progress()
    try:
        yield progress
    except BaseException as error:
        kept.close(keep=progress.scored or isinstance(error, KeyboardInterrupt | SystemExit))
        if progress.scored and isinstance(error, UserError):
            raise UserError(f"{error}{SCORES_KEPT}") from None
        raise
    kept.close()


def drop(path: Path) -> None:
    """Remove what an interrupted command left of a file."""
    for left in (_part(path), _note(path)):
        with contextlib.suppress(OSError):
            left.unlink(missing_ok=True)


def crc_of(logits: np.ndarray, first: int, last: int, before: int = 0) -> int:
    """CRC-32 of the scores first … last − 1, going on from that of those before; read in pieces."""
    flat = logits.reshape(-1)
    for start in range(first, last, 2**20):
        before = zlib.crc32(flat[start : min(last, start + 2**20)].tobytes(), before)
    return before


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}{PART}")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}{PART}.json")


def _hold(part: Path, path: Path) -> IO[bytes]:
    """`UserError` if another process holds the file; it is held as long as the file that is returned is open."""
    file = part.open("rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"--out {path.parent}: another command is writing {path.name} there") from None
    except OSError:  # a file system without locks
        pass
    return file


def _left_over(
    part: Path, identity: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[np.memmap, int, int, int] | None:
    """Array, count and checksums of the same work, if they are there and sound."""
    try:
        about = json.loads(part.with_name(f"{part.name}.json").read_bytes())
        if about["identity"] != identity:
            return None
        logits, done = np.lib.format.open_memmap(part, "r+"), int(about["done"])
        right = logits.shape == shape and logits.dtype == np.float32 and 0 <= done <= logits.size
        if not right or crc_of(logits, 0, done) != about["crc32"]:
            return None
        assert isinstance(logits, np.memmap)
        return logits, done, int(about["crc32"]), int(about["pixels"])
    except Exception:  # of a damaged note or array; numpy raises many kinds
        return None
