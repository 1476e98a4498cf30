"""Every kind of input gives the same levels, and what cannot be read is named with its reason."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from d2l_study.errors import UserError
from d2l_study.inference import inputs as inputs_module
from d2l_study.inference.inputs import open_inputs, read_image, read_parts

GREY, COLOUR = (1, 6, 5), (3, 6, 5)


def levels(count=4, shape=GREY, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def read(names, shape=GREY):
    """All that was read: sources, indices and patches."""
    parts = list(read_parts(open_inputs(names, shape), shape))
    assert all(part.patches.dtype == np.uint8 and part.patches.flags.writeable for part in parts)
    return (
        [source for part in parts for source in part.sources],
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.patches for part in parts]),
    )


def refusal(names, shape=GREY):
    with pytest.raises(UserError) as caught:
        read(names, shape)
    return str(caught.value)


def npy(folder, array, name="a.npy"):
    np.save(folder / name, array)
    return folder / name


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


# ---- arrays
def test_an_array_in_each_form_gives_the_same_patches(tmp_path):
    patches = levels()
    np.savez(tmp_path / "one.npz", x=patches)
    np.savez_compressed(tmp_path / "two.npz", x=patches[:, 0], labels=np.arange(4))
    (tmp_path / "images-idx3-ubyte").write_bytes(idx(patches[:, 0]))
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(patches[:, 0])))
    (tmp_path / "unnamed").write_bytes(npy(tmp_path, patches).read_bytes())  # told by content, not by name
    names = [
        npy(tmp_path, patches, "nchw.npy"), npy(tmp_path, patches[:, 0], "nhw.npy"), tmp_path / "one.npz",
        f"{tmp_path}/two.npz:x", tmp_path / "images-idx3-ubyte", tmp_path / "images.gz", tmp_path / "unnamed",
        npy(tmp_path, patches.astype(np.int64), "int64.npy"), npy(tmp_path, patches.astype(">u2"), "big_endian.npy"),
    ]  # fmt: skip
    for name in names:
        sources, index, found = read([name])
        assert sources == [str(name)] * 4 and index.tolist() == [0, 1, 2, 3]
        np.testing.assert_array_equal(found, patches)
    _, index, found = read([npy(tmp_path, patches[2, 0], "hw.npy")])
    assert index.tolist() == [0] and np.array_equal(found, patches[2:3])


def test_floats_in_unit_range_and_in_levels_are_told_apart(tmp_path):
    patches = levels()
    patches.flat[0] = 255
    for dtype in (np.float16, np.float32, np.float64):
        _, _, unit = read([npy(tmp_path, (patches / 255).astype(dtype))])
        assert np.array_equal(unit, patches)
        _, _, same = read([npy(tmp_path, patches.astype(dtype))])
        assert np.array_equal(same, patches)
    dark = np.minimum(levels(), 1)  # a 0/1 image in floats is black and white, not black and nearly black
    _, _, found = read([npy(tmp_path, dark.astype(np.float32))])
    assert np.array_equal(found, dark * 255)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (levels() / 255 * 1.2, ["not clear", "[0, 1]", "[0, 255]"]),
        (levels() / 255 - 0.13, ["normalised", "float64"]),
        (levels() * 2.0, ["[0, 255]"]),
        (levels().astype(np.int32) - 1, ["int32", "[0, 255]"]),
        (np.where(levels() > 99, np.nan, 0.5), ["nan"]),
        (levels() > 99, ["bool", "uint8"]),
        (np.array([{"a": 1}], object), ["object"]),
        (levels()[:, 0, :, :4], ["(4, 6, 4)", "(N, 1, 6, 5)", "(N, 6, 5)", "(6, 5)"]),
        (levels().reshape(4, 6, 5, 1), ["(4, 6, 5, 1)", "moveaxis"]),
        (np.arange(4, dtype=np.uint8), ["(4,)", "labels"]),
        (levels(0), ["no patches"]),
        (np.asfortranarray(levels()[:, 0]), ["Fortran", "ascontiguousarray"]),
    ],
)
def test_an_array_that_does_not_fit_is_refused_with_what_would(tmp_path, array, words):
    message = refusal([npy(tmp_path, array)])
    assert message.startswith(str(tmp_path / "a.npy"))
    for word in words:
        assert word in message


def test_an_array_for_a_colour_model(tmp_path):
    patches = levels(shape=COLOUR)
    assert np.array_equal(read([npy(tmp_path, patches)], COLOUR)[2], patches)
    assert "array[None]" in refusal([npy(tmp_path, patches[0])], COLOUR)
    assert "moveaxis" in refusal([npy(tmp_path, patches.transpose(0, 2, 3, 1))], COLOUR)
    grey = refusal([npy(tmp_path, levels()[:, 0])], COLOUR)
    assert "(N, 3, 6, 5)" in grey and "(N, 6, 5)" not in grey


def test_an_archive_says_which_arrays_it_has(tmp_path):
    np.savez(tmp_path / "two.npz", train=levels(), test=levels())
    assert "train" in (message := refusal([tmp_path / "two.npz"])) and "two.npz:test" in message
    assert "'train'" in refusal([f"{tmp_path}/two.npz:trian"])
    (tmp_path / "other.npz").write_bytes(b"PK\x05\x06" + b"\0" * 18)
    assert "without arrays" in refusal([tmp_path / "other.npz"])
    assert ".npz" in refusal([f"{npy(tmp_path, levels())}:train"])


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a-idx", "a.gz"])
def test_a_damaged_file_of_each_kind_is_named(tmp_path, name):
    path = tmp_path / name
    if name == "a.npz":
        np.savez_compressed(path, x=levels(40))
    else:
        npy(tmp_path, levels(40)) if name == "a.npy" else path.write_bytes(idx(levels(40)[:, 0]))
        if name == "a.gz":
            path.write_bytes(gzip.compress(path.read_bytes()))
    whole = path.read_bytes()
    for data in (
        whole[: len(whole) // 2],
        whole[:9],
        whole[: len(whole) // 2] + b"\xff" * 9 + whole[len(whole) // 2 :],
    ):
        path.write_bytes(data)
        assert str(path) in refusal([path])


def test_long_arrays_come_in_parts_and_short_inputs_share_one(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs_module, "PART_PATCHES", 7)
    counts = (3, 17, 2, 2)
    names = [npy(tmp_path, levels(n, seed=i), f"{i}.npy") for i, n in enumerate(counts)]
    parts = list(read_parts(open_inputs(names, GREY), GREY))
    assert max(len(part.patches) for part in parts) <= 7 and len(parts) < 8
    sources, index, patches = read(names)
    assert sources == [str(name) for name, n in zip(names, counts, strict=True) for _ in range(n)]
    assert index.tolist() == [*range(3), *range(17), *range(2), *range(2)]
    assert np.array_equal(patches, np.concatenate([levels(n, seed=i) for i, n in enumerate(counts)]))


# ---- images
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg"])
def test_an_image_of_each_kind_grey_and_colour(tmp_path, suffix):
    exact = suffix != "jpg"
    colour = levels(1, COLOUR)[0] if exact else np.full(COLOUR, 90, np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(colour.transpose(1, 2, 0)).save(path)
    _, _, found = read([path], COLOUR)
    assert np.allclose(found[0], colour, atol=0 if exact else 2)
    if exact:  # the colours of the other are all grey
        assert f"{path}: is in colour; this model was trained on grey images" in refusal([path], GREY)
    else:
        assert np.allclose(read([path], GREY)[2], 90, atol=2)
    Image.fromarray(colour[0]).save(path)
    assert np.allclose(read([path], GREY)[2][0, 0], colour[0], atol=0 if exact else 2)
    assert "greyscale" in refusal([path], COLOUR)  # a model of colours was never shown grey tissue


def test_a_folder_is_walked_in_sorted_order(tmp_path):
    (tmp_path / "b").mkdir()
    order = ["a2.png", "b/0.tif", "b/1.PNG", "c.bmp"]
    for i, name in enumerate(reversed(order)):
        Image.fromarray(np.full((6, 5), 10 * i, np.uint8)).save(tmp_path / name)
    (tmp_path / "Readme.txt").write_text("not an image")
    (tmp_path / "._a2.png").write_text("a Mac's shadow file")
    sources, index, patches = read([tmp_path])
    assert sources == [str(tmp_path / name) for name in order] and index.tolist() == [0] * 4
    assert patches[:, 0, 0, 0].tolist() == [30, 20, 10, 0]


def test_linked_folders_are_walked_once_and_hidden_ones_are_not(tmp_path):
    """Links that lead in a circle, and one to a folder that is there by itself."""
    for name in ("in/own", "in/.kept", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (5, 6)).save(tmp_path / name / "a.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in" / "own")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "in")
    sources, _, _ = read([tmp_path / "in"])
    assert sources == [str(tmp_path / "in" / name / "a.png") for name in ("linked", "own")]


def test_images_that_cannot_be_used_are_all_named_before_anything_is_read(tmp_path):
    Image.new("L", (28, 20)).save(tmp_path / "size.png")
    Image.new("I;16", (5, 6)).save(tmp_path / "deep.png")
    Image.new("L", (5, 6)).save(tmp_path / "pages.tif", save_all=True, append_images=[Image.new("L", (5, 6))])
    (tmp_path / "text.png").write_text("hello")
    message = refusal([tmp_path, tmp_path / "missing.png"])
    for words in (
        "size.png: 28×20 pixels (width×height); the model expects patches of 5×6", "deep.png: 16 bits a channel",
        "pages.tif: holds 2 pages", "text.png: is not an image", "missing.png: no such file", "5 inputs",
    ):  # fmt: skip
        assert words in message


def test_a_truncated_image_is_named_when_it_is_read(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 50), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    shape = (1, 60, 50)
    opened = open_inputs([path], shape)
    with pytest.raises(UserError, match=r"a\.png: cannot be read as an image: .*truncated"):
        list(read_parts(opened, shape))


def test_transparent_pixels_are_refused_and_opaque_alpha_is_dropped(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (5, 6), (10, 20, 30, 255)).save(path)
    assert read_image(path, 3)[:, 0, 0].tolist() == [10, 20, 30]
    Image.new("RGBA", (5, 6), (10, 20, 30, 0)).save(path)
    with pytest.raises(UserError, match="transparent"):
        read_image(path, 3)


def test_names_that_lead_nowhere(tmp_path):
    npy(tmp_path, levels(), "digits.npy")
    assert "'digits.npy'" in refusal([tmp_path / "digit.npy"])
    (tmp_path / "empty").mkdir()
    assert "without images" in refusal([tmp_path / "empty"])
    assert "given twice" in refusal([tmp_path / "digits.npy", tmp_path / "digits.npy"])
    assert "give an array" in refusal([_png(tmp_path)], (4, 6, 5))


def _png(folder):
    Image.new("L", (5, 6)).save(folder / "grey.png")
    return folder / "grey.png"
