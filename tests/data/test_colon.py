"""The colon archive's layout, coordinates and damage, on synthetic images of the same file types."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from d2l_study.data import ColonBags, colon
from d2l_study.data.cutting import cut_patches
from d2l_study.data.synthetic_tissue import write_colon, write_nuclei
from d2l_study.errors import UserError


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("colon")
    write_colon(root, 6, side=90, nuclei=12, seed=3)
    return root


@pytest.fixture
def root(written, tmp_path, cache) -> Path:
    """A copy to damage, with an empty cache."""
    shutil.copytree(written, tmp_path / "data")
    return tmp_path / "data"


def file_of(root: Path, name: str) -> Path:
    (found,) = root.rglob(name)
    return found


def test_a_bag_is_an_image_and_is_positive_by_its_epithelial_nuclei(root):
    pool = ColonBags(root=str(root)).load_pool()
    assert pool.names == tuple(f"img{n}" for n in range(1, 7))
    assert pool.bags.label.tolist() == [1, 0, 1, 0, 1, 0]
    assert pool.instances.dtype == np.uint8 and pool.instances.shape[1:] == (3, 27, 27)
    truth, bag_of = pool.bags.instance_label, pool.bags.bag_of
    assert [int(truth[bag_of == b].max()) for b in range(6)] == pool.bags.label.tolist()
    nuclei = [len(colon.read_nuclei(p)) for p in root.rglob("*.mat")]
    assert len(pool.instances) == sum(nuclei)
    assert int(truth.sum()) == sum(len(colon.read_nuclei(p)) for p in root.rglob("*_epithelial.mat"))


def test_a_patch_is_centred_on_its_nucleus_counted_from_one(root):
    """A nucleus at column 31.4 and row 42.6, counted from 1, has the centre pixel (30, 42)."""
    write_nuclei(file_of(root, "img2_others.mat"), np.array([[31.4, 42.6]]))
    pool = ColonBags(root=str(root)).load_pool()
    (at,) = np.flatnonzero((pool.xy == [30, 42]).all(axis=1) & (pool.bags.bag_of == 1))
    image = np.asarray(Image.open(pool.image_of(1)))
    assert np.array_equal(pool.instances[at].transpose(1, 2, 0), image[42 - 13 : 42 + 14, 30 - 13 : 30 + 14])


def test_beyond_the_border_the_image_is_reflected():
    image = np.arange(40 * 50 * 3, dtype=np.uint16).reshape(40, 50, 3)
    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="reflect")
    for x, y in ((-1, 0), (0, 39), (49, 3), (25, 20)):
        (patch,) = cut_patches(image, np.array([[x, y]], float), (27, 27))
        expected = padded[y + 20 - 13 : y + 20 + 14, x + 20 - 13 : x + 20 + 14]
        assert np.array_equal(patch.transpose(1, 2, 0), expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.27, 428.5]]), [[-1, 428]]),  # below 1 happens; halves are rounded up
        (np.array([[500, 1]], np.uint16), [[499, 0]]),
        (np.array([[3, 4], [5, 6]], np.uint8), [[2, 3], [4, 5]]),
        (np.zeros((0, 2), np.uint8), np.zeros((0, 2))),
        (np.zeros((0, 0)), np.zeros((0, 2))),
    ],
)
def test_coordinates_of_any_type_become_pixels_counted_from_zero(tmp_path, values, expected):
    savemat(tmp_path / "n.mat", {"detection": values})
    assert np.array_equal(colon.read_nuclei(tmp_path / "n.mat"), expected)


def test_the_archive_is_found_from_above_within_and_in_any_case(root, tmp_path):
    whole = ColonBags(root=str(root)).load_pool().checksum
    archive = root / colon.ARCHIVE
    for folder in (archive, archive / "Classification"):
        assert ColonBags(root=str(folder)).load_pool().checksum == whole
    archive.rename(root / "crchistophenotypes_2016_04_28")
    image = file_of(root, "img1.bmp")
    image.rename(image.with_name("IMG1.BMP"))
    assert ColonBags(root=str(root)).load_pool().checksum == whole


def test_any_part_of_the_images_works(root):
    shutil.rmtree(file_of(root, "img3.bmp").parent)
    assert ColonBags(root=str(root)).load_pool().names == ("img1", "img2", "img4", "img5", "img6")


def test_the_cache_is_mapped_and_follows_the_content(root, cache, monkeypatch):
    first = ColonBags(root=str(root)).load_pool()
    assert isinstance(first.instances, np.memmap)
    monkeypatch.setattr("d2l_study.data.cutting._cut", lambda *_: pytest.fail("cut again"))
    assert ColonBags(root=str(root)).load_pool().checksum == first.checksum
    shutil.copytree(root, root.with_name("moved"))  # elsewhere, the same content: read, but not cut again
    moved = ColonBags(root=str(root.with_name("moved"))).load_pool()
    assert moved.checksum == first.checksum and "moved" in str(moved.image_of(0))
    monkeypatch.undo()
    monkeypatch.setenv("D2L_CACHE", str(cache))
    image = file_of(root, "img1.bmp")
    Image.fromarray(255 - np.asarray(Image.open(image))).save(image)
    assert ColonBags(root=str(root)).load_pool().checksum != first.checksum


def test_a_damaged_cache_is_made_again(root, cache):
    first = ColonBags(root=str(root)).load_pool()
    pixels = np.array(first.instances)
    (arrays,) = cache.rglob("instances.npy")
    arrays.write_bytes(arrays.read_bytes()[:100])
    assert np.array_equal(ColonBags(root=str(root)).load_pool().instances, pixels)
    assert not [p for p in cache.iterdir() if p.name.count("-") > 1]  # nothing half-made is left


def test_nearly_white_patches_are_left_out_on_request(root):
    image = file_of(root, "img2.bmp")
    pixels = np.array(Image.open(image))
    pixels[:, :45] = 250
    Image.fromarray(pixels).save(image)
    whole = ColonBags(root=str(root)).load_pool()
    kept = ColonBags(root=str(root), white_above=0.9).load_pool()
    bright = whole.instances[whole.bags.instance].mean(axis=(1, 2, 3)) / 255 > 0.9
    assert bright.any() and kept.bags.sizes.sum() == (~bright).sum()
    assert np.array_equal(kept.xy, whole.xy[~bright])
    assert np.array_equal(kept.bags.instance_label, whole.bags.instance_label[~bright])
    with pytest.raises(UserError, match=r"data.white_above: 0.01 leaves no instance in img1"):
        ColonBags(root=str(root), white_above=0.01).load_pool()


def damage(name: str):
    """How a file is damaged, and what the message must say."""
    return {
        "truncated": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
        "no image": lambda p: p.write_bytes(b"hello"),
        "gone": lambda p: p.unlink(),
        "small": lambda p: Image.new("RGB", (40, 20)).save(p),
        "other key": lambda p: savemat(p, {"nuclei": np.ones((2, 2))}),
        "text": lambda p: savemat(p, {"detection": np.array(["a", "b"])}),
        "shape": lambda p: savemat(p, {"detection": np.ones((2, 3))}),
        "nan": lambda p: savemat(p, {"detection": np.array([[1.0, 1.0], [np.nan, 3.0]])}),
        "below": lambda p: savemat(p, {"detection": np.array([[5.0, -3.0]])}),
        "beyond": lambda p: savemat(p, {"detection": np.array([[5.0, 5.0], [92.0, 5.0]])}),
    }[name]


@pytest.mark.parametrize(
    ("file", "how", "message"),
    [
        ("img4.bmp", "truncated", r"img4.bmp: cannot be read as an image: .*truncated"),
        ("img4.bmp", "no image", r"img4.bmp: is not an image"),
        ("img4.bmp", "gone", r"img4: no img4.bmp"),
        ("img4.bmp", "small", r"img4.bmp: 40×20 pixels, smaller than a patch of 27×27"),
        ("img4_others.mat", "gone", r"img4: no img4_others.mat"),
        ("img4_others.mat", "truncated", r"img4_others.mat: cannot be read as a MATLAB file"),
        ("img4_others.mat", "no image", r"img4_others.mat: cannot be read as a MATLAB file"),
        ("img4_others.mat", "other key", r"img4_others.mat: no array 'detection' \(found: nuclei\)"),
        ("img4_others.mat", "text", r"img4_others.mat: 'detection' is of type <U1; expected numbers"),
        ("img4_others.mat", "shape", r"img4_others.mat: 'detection' has the shape \(2, 3\); expected \(k, 2\)"),
        ("img4_others.mat", "nan", r"img4_others.mat: nucleus 1 has no finite coordinates"),
        ("img4_others.mat", "below", r"img4_others.mat: a nucleus at column 5, row -3 is outside the image"),
        ("img4_others.mat", "beyond", r"img4.bmp: 90×90 pixels, but an instance is at column 91, row 4"),
    ],
)
def test_a_damaged_file_is_named_with_its_reason(root, cache, file, how, message):
    damage(how)(file_of(root, file))
    with pytest.raises(UserError, match=message):
        ColonBags(root=str(root)).load_pool()
    assert not list(cache.glob("colon-*")) or all(p.name == "colon-files" for p in cache.glob("colon-*"))


def test_an_image_without_nuclei_is_named(root):
    for path in root.rglob("img4_*.mat"):
        savemat(path, {"detection": np.zeros((0, 2), np.uint8)})
    with pytest.raises(UserError, match="bags without an instance: img4"):
        ColonBags(root=str(root)).load_pool()


def test_a_missing_root_says_what_to_do(tmp_path, cache, monkeypatch):
    monkeypatch.delenv("D2L_DATA", raising=False)
    with pytest.raises(UserError, match=r"data.root: not given; .*D2L_DATA"):
        ColonBags().load_pool()
    monkeypatch.setenv("D2L_DATA", str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"D2L_DATA: .*none' is not a folder"):
        ColonBags().load_pool()
    with pytest.raises(UserError, match=r"holds no colon images .*https://warwick"):
        ColonBags(root=str(tmp_path)).load_pool()
