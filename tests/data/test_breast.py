"""The breast archive's two layouts, its masks and what they are truth for, on synthetic images of the same types."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2l_study.data import BreastBags, breast
from d2l_study.data.synthetic_tissue import CORES, write_breast
from d2l_study.errors import UserError

SIZE = {"width": 160, "height": 128}  # a grid of 5 × 4 patches


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("breast")
    write_breast(root, 2, cores=4, nuclei=25, seed=1, **SIZE)
    return root


@pytest.fixture
def root(written, tmp_path, cache) -> Path:
    shutil.copytree(written, tmp_path / "data")
    return tmp_path / "data"


def test_a_bag_is_the_grid_of_an_image_named_malignant_or_benign(root):
    pool = BreastBags(root=str(root)).load_pool()
    assert len(pool.bags) == 8 and set(pool.bags.sizes) == {20}
    assert pool.bags.label.tolist() == ["malignant" in name for name in pool.names]
    assert [pool.group_names[g] for g in pool.group] == [
        name.split("_benign")[0].split("_malig")[0] for name in pool.names
    ]
    assert set(pool.group_names) == set(CORES[:4])
    image = np.asarray(Image.open(pool.image_of(3)))
    rows = image.reshape(4, 32, 5, 32, 3).transpose(0, 2, 4, 1, 3).reshape(20, 3, 32, 32)
    assert np.array_equal(pool.instances[60:80], rows)
    assert pool.xy[60].tolist() == [15.5, 15.5] and pool.xy[66].tolist() == [47.5, 47.5]


def test_both_layouts_give_the_same_data_and_masks_are_no_images(root, tmp_path, cache):
    two = BreastBags(root=str(root)).load_pool()
    flat = tmp_path / "elsewhere"
    (flat / "breastcancercell_DATASET").mkdir(parents=True)
    for path in root.rglob("*"):
        if path.is_file():
            shutil.copy(path, flat / "breastcancercell_DATASET" / path.name.upper())
    one = BreastBags(root=str(flat)).load_pool()
    assert one.checksum == two.checksum and len(one.bags) == 8
    assert BreastBags(root=str(flat / "breastcancercell_DATASET")).load_pool().checksum == two.checksum


def test_truths_are_what_the_masks_say_patch_by_patch(root):
    pool = BreastBags(root=str(root)).load_pool()
    unmasked = 0
    for b, name in enumerate(pool.names):
        path = root / breast.ARCHIVE / "Masks" / f"{name}.TIF"
        bag = slice(20 * b, 20 * b + 20)
        primary, wide = pool.bags.instance_label[bag], pool.truths["wide"][bag]
        malignant = "malignant" in name
        if not path.exists():
            unmasked += 1
            assert (primary == -1).all() and (wide == (-1 if malignant else 0)).all()
            continue
        mask = breast.read_mask(path, (SIZE["width"], SIZE["height"]))
        y, x = np.nonzero(mask)
        for i in range(20):
            top, left = i // 5 * 32, i % 5 * 32
            count = mask[top : top + 32, left : left + 32].sum()
            inside = top >= y.min() and top + 31 <= y.max() and left >= x.min() and left + 31 <= x.max()
            assert primary[i] == (int(malignant) if count >= 10 else -1)
            expected = 1 if malignant and count >= 10 else 0 if not malignant or (inside and count == 0) else -1
            assert wide[i] == expected
    assert unmasked == 2


def test_inside_the_crop_a_malignant_patch_without_nuclei_is_negative_and_outside_unknown():
    mask = np.zeros((128, 160), bool)
    mask[20:36, 20:36] = mask[90:110, 120:140] = True
    primary, wide = breast.patch_truths(mask, True, (160, 128))
    grid = np.full((4, 5), -1)
    grid[0, 0] = grid[0, 1] = grid[1, 0] = grid[1, 1] = grid[2, 3] = grid[2, 4] = grid[3, 3] = grid[3, 4] = 1
    grid[1, 2] = grid[1, 3] = grid[2, 1] = grid[2, 2] = 0
    assert np.array_equal(wide.reshape(4, 5), grid)
    assert np.array_equal(primary.reshape(4, 5) == 1, grid == 1) and not (primary == 0).any()
    primary, wide = breast.patch_truths(mask, False, (160, 128))
    assert np.array_equal(primary.reshape(4, 5) == 0, grid == 1) and (wide == 0).all()


def test_stray_marks_do_not_widen_the_annotated_crop(tmp_path):
    pixels = np.zeros((128, 160), np.uint8)
    pixels[40:60, 40:60] = 255
    pixels[2, 3] = pixels[120, 150:155] = 255
    Image.fromarray(pixels).save(tmp_path / "m.TIF")
    mask = breast.read_mask(tmp_path / "m.TIF", (160, 128))
    assert mask.sum() == 400 and mask[40:60, 40:60].all()


def test_folds_are_of_tissue_cores(root):
    data = BreastBags(root=str(root), folds=4)
    pool = data.load_pool()
    for number in range(8):
        r = data.replicate(pool, number, 1)
        groups = [set(pool.group[bags.number]) for bags in (r.train, r.val, r.test)]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    list(data.replicates(pool, 8, 1))
    with pytest.raises(UserError, match=r"data.folds: 5 is more than the 4 groups"):
        list(BreastBags(root=str(root), folds=5).replicates(pool, 1, 1))


@pytest.mark.parametrize(
    ("pattern", "how", "message"),
    [
        ("*_ccd.tif", lambda p: p.write_bytes(p.read_bytes()[:20_000]), r"_ccd.tif: cannot be read as an image"),
        ("*.TIF", lambda p: p.write_bytes(p.read_bytes()[:5_000]), r"\d.TIF: cannot be read as an image"),
        ("*.TIF", lambda p: Image.new("L", (80, 128)).save(p), r"a mask of 80×128 pixels; its image has 160×128"),
        ("*_ccd.tif", lambda p: Image.new("RGB", (20, 128)).save(p), r"20×128 pixels, smaller than a patch of 32×32"),
        ("*_ccd.tif", lambda p: Image.new("I;16", (160, 128)).save(p), r"16 bits a channel"),
        ("*_ccd.tif", lambda p: Image.new("RGBA", (160, 128)).save(p), r"transparent pixels; expected an opaque image"),
        ("*_ccd.tif", lambda p: p.rename(p.with_name("ytma10_010704_3_ccd.tif")),
         r"ytma10_010704_3_ccd.tif: its name says neither benign nor malignant"),
        ("*_ccd.tif", lambda p: p.rename(p.with_name("ytma10_010704_benign_malignant3_ccd.tif")),
         r"malignant3_ccd.tif: its name says both benign and malignant"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_its_reason(root, pattern, how, message):
    how(min(root.rglob(pattern)))
    with pytest.raises(UserError, match=message):
        BreastBags(root=str(root)).load_pool()


def test_a_damaged_header_is_said_in_one_line(root, recwarn):
    """Pillow would first warn of corrupt EXIF data, in lines of its own."""
    path = min(root.rglob("*_ccd.tif"))
    # The archive's files have their directory behind the pixels, where a truncated one has nothing.
    path.write_bytes(b"II*\0" + (2_000_000).to_bytes(4, "little") + bytes(5000))
    with pytest.raises(UserError) as caught:
        BreastBags(root=str(root)).load_pool()
    assert str(caught.value) == f"{path}: cannot be read as an image: damaged (its tag ImageWidth is missing)"
    assert not recwarn.list


def test_a_folder_without_breast_images_says_where_they_are_to_be_had(tmp_path, cache):
    with pytest.raises(UserError, match=r"holds no breast images .*https://bioimage.ucsb.edu"):
        BreastBags(root=str(tmp_path)).load_pool()
