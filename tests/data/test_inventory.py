"""`data` says what is there, and what is wrong with the rest."""

from __future__ import annotations

import numpy as np
import pytest

from d2l_study.cli import main
from d2l_study.data.synthetic_tissue import write_breast, write_colon


@pytest.fixture
def root(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("D2L_DATA", raising=False)
    write_colon(tmp_path / "data", 5, side=80, nuclei=6)
    write_breast(tmp_path / "data", 2, cores=3, nuclei=10, width=96, height=64)
    return tmp_path / "data"


def test_what_is_there_is_counted(root, capsys):
    from d2l_study.data import BreastBags, ColonBags

    assert main(["data", "--data", str(root)]) == 0
    text = capsys.readouterr().out
    nuclei = ColonBags(root=str(root)).load_pool()
    assert "5 of 100 images: 3 positive, 2 negative" in text
    assert f"  {len(nuclei.instances)} nuclei" in text and f" {nuclei.bags.instance_label.sum()} epithelial" in text
    assert "95 not here (img6, img7" in text
    truth = BreastBags(root=str(root)).load_pool().bags.instance_label
    assert "6 of 58 images: 2 malignant, 4 benign" in text and "36 patches of 3 tissue cores" in text
    assert f"{np.sum(truth == 1)} positive, {np.sum(truth == 0)} negative, {np.sum(truth == -1)} unknown" in text
    assert "2 images without a mask: " in text


def test_unreadable_files_are_named_and_the_others_still_counted(root, capsys, monkeypatch):
    (damaged,) = root.rglob("img2.bmp")
    damaged.write_bytes(damaged.read_bytes()[:999])
    (gone,) = root.rglob("img4_others.mat")
    gone.unlink()
    mask = min(root.rglob("*.TIF"))
    mask.write_bytes(b"no tiff")
    monkeypatch.setenv("D2L_DATA", str(root))
    assert main(["data"]) == 1
    text = capsys.readouterr().out
    assert "3 of 100 images" in text and "5 of 58 images" in text
    assert f"unusable: {damaged}: cannot be read as an image" in text
    assert f"unusable: {gone.parent}: no img4_others.mat" in text
    assert f"unusable: {mask}: is not an image" in text


def test_images_that_training_would_refuse_are_named(root, capsys):
    """Readable, but their bag has no instances, or one outside of the image."""
    from scipy.io import savemat

    (first,) = root.rglob("img1")
    for path in first.glob("*.mat"):
        savemat(path, {"detection": np.zeros((0, 2), np.uint8)})
    (other,) = root.rglob("img2_others.mat")
    savemat(other, {"detection": np.array([[700.0, 3.0]])})
    assert main(["data", "--data", str(root)]) == 1
    text = capsys.readouterr().out
    assert "3 of 100 images" in text
    assert f"unusable: {first / 'img1.bmp'}: a bag without instances" in text
    assert f"unusable: {other.parent / 'img2.bmp'}: 80×80 pixels, but an instance is at column 699, row 2" in text


def test_without_a_folder_it_says_where_the_archives_are_to_be_had(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("D2L_DATA", raising=False)
    assert main(["data"]) == 0
    text = capsys.readouterr().out
    assert "https://warwick.ac.uk" in text and "https://bioimage.ucsb.edu" in text and "D2L_DATA" in text
    assert main(["data", "--data", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert main(["data", "--data", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "colon: not below" in text and "breast: not below" in text


def test_a_folder_that_cannot_be_listed_is_named(root, capsys, monkeypatch):
    """A root without permission, or on a disk that fails; the user of tests may read everything."""
    import errno
    import os
    from pathlib import Path

    def fails(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "iterdir", fails)
    assert main(["data", "--data", str(root)]) == 2
    assert f"error: data: {root}: Input/output error" in capsys.readouterr().err
    from d2l_study.data import ColonBags
    from d2l_study.errors import UserError

    with pytest.raises(UserError, match=rf"data set colon: {root}: Input/output error"):
        ColonBags(root=str(root)).load_pool()
