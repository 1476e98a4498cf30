"""Several that start on an empty cache: one cuts, the others wait and share what it made."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2l_study.data.cutting import BagSource, ImageCut, cached_collection
from d2l_study.errors import UserError


def _image(folder: Path) -> Path:
    path = folder / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(path)
    return path


def _source(path: Path) -> BagSource:
    return BagSource("a", 1, "a", (ImageCut(path, np.array([[9.0, 9.0]]), np.array([1], np.int8)),))


def test_one_cuts_and_the_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    path, described, found = _image(tmp_path), [], []

    def describe(_) -> list[BagSource]:
        described.append(threading.get_ident())
        time.sleep(0.3)  # long enough for the others to arrive
        return [_source(path)]

    def load() -> None:
        found.append(cached_collection("t", [path], {}, describe, (9, 9)))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(described) == 1
    assert len({one.checksum for one in found}) == 1 and len(found) == 4


def test_a_failure_lets_the_next_one_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    path = _image(tmp_path)

    def broken(_) -> list[BagSource]:
        raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        cached_collection("t", [path], {}, broken, (9, 9))
    assert len(cached_collection("t", [path], {}, lambda _: [_source(path)], (9, 9)).instances) == 1
