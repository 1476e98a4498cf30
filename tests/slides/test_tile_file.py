"""Files of tiles have TRIDENT's layout, and those of TRIDENT and CLAM are read."""

import dataclasses

import h5py
import numpy as np
import pytest

from d2l_study.damaged_files import open_hdf5
from d2l_study.errors import UserError
from d2l_study.slides.tile_file import magnification, read_about, read_tiles, tile_path, write_tiles
from d2l_study.slides.tiles import SlideTiles

TRIDENT = {
    "patch_size", "patch_size_level0", "level0_magnification", "target_magnification", "overlap", "name", "savetodir",
    "level0_width", "level0_height",
}  # fmt: skip


def tiles(**changes):
    xy = np.array([[0, 0], [448, 0], [0, 448]])
    found = SlideTiles("S-1", xy, 224, (448.0, 448.0), 0, 0.5, (0.25, 0.25), 100_000, 80_000)
    return dataclasses.replace(found, **changes)


def coords_file(path, coords, **attributes):
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=coords).attrs.update(attributes)
    return path


def test_the_layout_is_tridents(tmp_path):
    path = write_tiles(tmp_path / "out", tiles(), {"mpp": 0.5})
    assert path == tmp_path / "out" / "patches" / "S-1_patches.h5" == tile_path(tmp_path / "out", "S-1")
    with h5py.File(path) as file:
        coords = file["coords"]
        assert list(file) == ["coords"] and coords.dtype == np.int64 and coords.shape == (3, 2)
        attributes = dict(coords.attrs)
    assert set(attributes) > TRIDENT
    said = {key: attributes[key] for key in TRIDENT}
    assert said == {
        "patch_size": 224, "patch_size_level0": 448, "level0_magnification": 40, "target_magnification": 20,
        "overlap": 0, "name": "S-1", "savetodir": str(tmp_path / "out"), "level0_width": 100_000,
        "level0_height": 80_000,
    }  # fmt: skip
    assert not list(path.parent.glob("*.part"))


@pytest.mark.parametrize("own", [0.2527, 0.2273, 0.499])
def test_trident_reads_the_same_tiles_of_odd_resolutions(own, tmp_path):
    side = 224 * 0.5 / own
    with h5py.File(write_tiles(tmp_path, tiles(side=(side, side), slide_mpp=(own, own)), {})) as file:
        given = file["coords"].attrs
        # It takes a pixel for 10 / magnification µm, and rounds the side in level-0 pixels.
        read = round(given["patch_size"] * given["level0_magnification"] / given["target_magnification"])
        assert read == given["patch_size_level0"] == round(side)


@pytest.mark.parametrize("change", [
    {}, {"side": (443.2, 450.1), "slide_mpp": (0.2527, 0.2488)}, {"xy": np.empty((0, 2), np.int64)}, {"overlap": 32},
    {"name": "Ö 1.2"},
])  # fmt: skip
def test_what_is_written_is_read_back(change, tmp_path):
    written = tiles(**change)
    path = write_tiles(tmp_path, written, {"version": 1, "given": None})
    found = read_tiles(path)
    assert np.array_equal(found.xy, written.xy) and found.xy.shape == written.xy.shape
    assert found.xy.dtype == np.int64
    for field in dataclasses.fields(SlideTiles):
        if field.name != "xy":
            assert getattr(found, field.name) == getattr(written, field.name), field.name
    assert read_about(path) == {"version": 1, "given": None}


def test_files_of_trident_are_read(tmp_path):
    known = {
        "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
        "overlap": 0, "name": "T", "savetodir": "/x",
    }  # fmt: skip
    found = read_tiles(coords_file(tmp_path / "T_patches.h5", np.array([[512, 0], [0, 512]]), **known))
    assert (found.name, found.size, found.side, found.overlap) == ("T", 256, (512, 512), 0)
    assert found.xy.tolist() == [[512, 0], [0, 512]] and found.mpp is None and found.width == 0
    more = read_tiles(coords_file(tmp_path / "U.h5", np.empty(0), **known, level0_width=9, level0_height=8))
    assert more.xy.shape == (0, 2) and (more.width, more.height) == (9, 8)
    assert read_about(tmp_path / "U.h5") == {}


@pytest.mark.parametrize(
    ("attributes", "side"),
    [
        ({"patch_level": 0, "downsample": [1.0, 1.0]}, (256, 256)),
        ({"patch_level": 1, "downsample": [4.0, 4.0001]}, (1024, 256 * 4.0001)),
        ({"patch_level": 1, "downsample": 2.0, "custom_downsample": 2}, (1024, 1024)),
    ],
)
def test_files_of_clam_are_read(attributes, side, tmp_path):
    path = coords_file(tmp_path / "C.h5", np.array([[8, 16]], np.int32), patch_size=256, name="C", save_path="/x",
                       **attributes)  # fmt: skip
    found = read_tiles(path)
    assert found.side == side and found.size == 256 and found.xy.tolist() == [[8, 16]] and found.name == "C"


def test_wrong_files_are_answered_in_a_line(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    whole = write_tiles(tmp_path, tiles(xy=np.arange(20_000).reshape(-1, 2)), {})
    (tmp_path / "short.h5").write_bytes(whole.read_bytes()[:-4000])
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file["features"] = np.zeros((3, 4))
    cases = {
        "nowhere.h5": "no such file",
        "text.h5": "cannot be read as tiles in HDF5",
        "short.h5": "cut short",
        "features.h5": r"no dataset coords \(found: features\)",
        coords_file(tmp_path / "bare.h5", np.array([[1, 2]])).name: "does not say how large its tiles are",
        coords_file(tmp_path / "wide.h5", np.zeros((2, 3)), patch_size=8).name: r"shape \(2, 3\)",
        coords_file(tmp_path / "nan.h5", np.array([[np.nan, 1]]), patch_size=8).name: "NaN",
    }
    for name, said in cases.items():
        with pytest.raises(UserError, match=said) as caught:
            read_tiles(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = write_tiles(tmp_path, tiles(), {})
    with pytest.raises(TypeError):
        write_tiles(tmp_path, tiles(xy=np.zeros((5, 2))), {"not": object()})
    with open_hdf5(path) as file:
        assert len(file["coords"]) == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_magnifications_are_whole_where_they_are_meant():
    assert [magnification(mpp) for mpp in (0.25, 0.5, 1.0, 2.0)] == [40, 20, 10, 5]
    assert isinstance(magnification(0.5), int) and magnification(0.2527) == pytest.approx(39.572616)
