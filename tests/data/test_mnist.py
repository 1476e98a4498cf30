"""Reading MNIST: every layout gives the same pool, every damage a message that names file and expectation."""

import gzip
import shutil
import struct

import numpy as np
import pytest

from d2l_study.data import mnist
from d2l_study.errors import UserError

NAMES = list(mnist.FILES)
TEST_LABELS = "t10k-labels-idx1-ubyte"
MD5 = {name: md5 for name, (md5, _) in mnist.FILES.items()}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    """A user's folder with copies of the four files, gzipped."""
    there = tmp_path / "mine"
    there.mkdir()
    for name in NAMES:
        shutil.copy(mnist.EMBEDDED / f"{name}.gz", there)
    return there


def unpack(folder, names=NAMES, rename=lambda name: name):
    for name in names:
        packed = folder / f"{name}.gz"
        (folder / rename(name)).write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()


@pytest.fixture
def small(monkeypatch):
    """The reader with a training set of 40 images, so that other IDX sets are cheap to make."""
    monkeypatch.setattr(mnist, "TRAIN_IMAGES", 40)


def write_set(folder, images=40, tests=10, labels=None, seed=0):
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", images), ("t10k", tests)):
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (count, 28, 28))))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(labels or count) % 10))
    return folder


def test_the_pool_is_mnist(pool):
    assert pool.instances.shape == (70_000, 1, 28, 28) and pool.instances.dtype == np.uint8
    assert pool.shape == (1, 28, 28)
    # Counts of the digits, as published; the mean and deviation that the normalisation uses.
    assert np.bincount(pool.classes[:60_000]).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(pool.classes[60_000:]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    pixels = pool.instances[:60_000]
    assert pixels.mean() / 255 == pytest.approx(mnist.MEAN, abs=1e-4)
    assert pixels.std() / 255 == pytest.approx(mnist.STD, abs=1e-4)


def test_the_pool_is_mapped_not_copied_and_read_only(pool):
    assert isinstance(pool.instances, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        pool.instances[0] = 0


@pytest.mark.parametrize("layout", ["gz", "raw", "torchvision", "dotted"])
def test_every_layout_gives_the_same_pool(pool, folder, cache, layout):
    root = folder
    if layout == "raw":
        unpack(folder)
    elif layout == "dotted":
        unpack(folder, NAMES[:1], lambda name: name.replace("-idx", ".idx"))
    elif layout == "torchvision":
        root = folder.parent / "torchvision"
        (root / "MNIST").mkdir(parents=True)
        folder.rename(root / "MNIST" / "raw")
    found = mnist.load(root)
    assert found.checksum == pool.checksum
    assert np.array_equal(found.classes, pool.classes)
    assert np.array_equal(found.instances[::997], pool.instances[::997])


def test_truncated_gzip_is_named_with_what_was_expected(folder, cache):
    path = folder / f"{TEST_LABELS}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError) as error:
        mnist.load(folder)
    assert str(path) in str(error.value) and "truncated" in str(error.value) and MD5[TEST_LABELS] in str(error.value)


def test_gzip_with_a_damaged_middle(folder, cache):
    path = folder / f"{TEST_LABELS}.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged") as error:
        mnist.load(folder)
    assert str(path) in str(error.value) and MD5[TEST_LABELS] in str(error.value)


def test_file_that_only_claims_to_be_gzip(folder):
    path = folder / f"{TEST_LABELS}.gz"
    path.write_bytes(b"<html>404 Not Found</html>")
    with pytest.raises(UserError, match="gzip") as error:
        mnist.read_idx(path, TEST_LABELS)
    assert str(path) in str(error.value)


def test_truncated_raw_file_says_how_many_bytes_were_expected(folder):
    unpack(folder, [TEST_LABELS])
    path = folder / TEST_LABELS
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"5000 bytes; expected 10008") as error:
        mnist.read_idx(path, TEST_LABELS)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("length", [0, 3, 7])
def test_file_shorter_than_its_header(tmp_path, length):
    path = tmp_path / TEST_LABELS
    path.write_bytes(struct.pack(">II", 0x801, 10_000)[:length])
    with pytest.raises(UserError, match="not an IDX file") as error:
        mnist.read_idx(path, TEST_LABELS)
    assert str(path) in str(error.value) and str(0x801) in str(error.value)


def test_images_in_place_of_labels_are_told_by_the_magic_number(folder):
    images = folder / "t10k-images-idx3-ubyte.gz"
    with pytest.raises(UserError, match="expected magic number 2049") as error:
        mnist.read_idx(images, TEST_LABELS)
    assert str(images) in str(error.value)


def test_one_altered_byte_is_found_by_the_md5(folder, cache):
    unpack(folder, [TEST_LABELS])
    path = folder / TEST_LABELS
    data = bytearray(path.read_bytes())
    data[-1] = (data[-1] + 1) % 10
    path.write_bytes(data)
    with pytest.raises(UserError, match="altered") as error:
        mnist.load(folder)
    assert str(path) in str(error.value) and MD5[TEST_LABELS] in str(error.value)
    assert "data.verify" in str(error.value)  # how to allow it
    other = mnist.load(folder, verify=False)
    assert other.checksum != mnist.load(None).checksum  # and then it is another data set


def test_verification_is_not_skipped_because_an_unverified_load_came_first(folder, cache):
    unpack(folder, [TEST_LABELS])
    data = bytearray((folder / TEST_LABELS).read_bytes())
    data[-1] = (data[-1] + 1) % 10
    (folder / TEST_LABELS).write_bytes(data)
    mnist.load(folder, verify=False)
    with pytest.raises(UserError, match="altered"):
        mnist.load(folder, verify=True)


def test_labels_that_do_not_match_the_images(tmp_path, cache, small):
    folder = write_set(tmp_path / "set", labels=9)
    with pytest.raises(UserError, match=r"9 labels; expected 40") as error:
        mnist.load(folder, verify=False)
    assert str(folder / "train-labels-idx1-ubyte") in str(error.value)


def test_too_few_training_images(tmp_path, cache, small):
    folder = write_set(tmp_path / "set", images=39)
    with pytest.raises(UserError, match=r"39 images; expected 40") as error:
        mnist.load(folder, verify=False)
    assert str(folder / "train-images-idx3-ubyte") in str(error.value)


def test_images_of_another_size(tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(idx(np.zeros((5, 32, 32))))
    with pytest.raises(UserError, match=r"dimensions \(5, 32, 32\); expected \(10000, 28, 28\)"):
        mnist.read_idx(path, path.name, verify=False)


def test_another_idx_set_is_read_as_it_is(tmp_path, cache, small):
    folder = write_set(tmp_path / "set")
    pool = mnist.load(folder, verify=False)
    assert pool.instances.shape == (50, 1, 28, 28)
    assert pool.classes.tolist() == [*(i % 10 for i in range(40)), *range(10)]
    again = mnist.load(write_set(tmp_path / "other", seed=1), verify=False)
    assert again.checksum != pool.checksum  # the cache knows the two apart


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(folder, name):
    (folder / f"{name}.gz").unlink()
    with pytest.raises(UserError) as error:
        mnist.find_files(folder)
    assert "data.root" in str(error.value) and str(folder) in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("what", ["nowhere", "file"])
def test_a_root_that_is_no_folder(tmp_path, what):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.root") as error:
        mnist.find_files(tmp_path / what)
    assert str(tmp_path / what) in str(error.value) and "not a folder" in str(error.value)


def test_the_second_load_decodes_nothing(tmp_path, cache, small, monkeypatch):
    folder = write_set(tmp_path / "set")
    first = mnist.load(folder, verify=False)
    monkeypatch.setattr(mnist, "read_idx", lambda *_: pytest.fail("decoded again"))
    assert mnist.load(folder, verify=False).checksum == first.checksum


def _cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def _mix(path):
    np.save(path, np.zeros(3, np.int64))


@pytest.mark.parametrize("damage", [_cut, lambda path: path.write_bytes(b""), lambda path: path.unlink()])
@pytest.mark.parametrize("file", ["instances.npy", "classes.npy", "meta.json"])
def test_a_damaged_cache_is_rebuilt(tmp_path, cache, small, file, damage):
    folder = write_set(tmp_path / "set")
    before = mnist.load(folder, verify=False)
    expected = before.instances.copy(), before.classes.copy(), before.checksum
    del before
    (cached,) = cache.glob(f"*/{file}")
    damage(cached)
    found = mnist.load(folder, verify=False)
    assert np.array_equal(found.instances, expected[0])
    assert np.array_equal(found.classes, expected[1])
    assert found.checksum == expected[2]


@pytest.mark.parametrize("file", ["instances.npy", "classes.npy"])
def test_a_cache_whose_parts_do_not_fit_together_is_rebuilt(tmp_path, cache, small, file):
    folder = write_set(tmp_path / "set")
    mnist.load(folder, verify=False)
    (cached,) = cache.glob(f"*/{file}")
    _mix(cached)
    found = mnist.load(folder, verify=False)
    assert found.instances.shape == (50, 1, 28, 28) and len(found.classes) == 50
