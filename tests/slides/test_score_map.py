"""A score map has each tile's score in the pixel that stands for it, and NaN elsewhere; other readers find the same."""

import itertools
import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from d2l_study.errors import UserError
from d2l_study.slides.score_files import TileScores
from d2l_study.slides.score_map import pyramid, score_map, write_score_map


def tiles(xy, score):
    score = np.array(score, np.float64)
    return TileScores(np.array(xy).reshape(-1, 2), score.astype(np.float32), score)


def test_each_tile_is_a_pixel_and_the_rest_is_nan(tmp_path):
    found = score_map([tiles([(0, 0), (448, 0)], [0.1, 0.2]), tiles([(448, 896)], [0.9])], (1400, 1000), 448, 448)
    expected = np.full((3, 4), np.nan, np.float32)
    expected[0, :2], expected[2, 1] = [0.1, 0.2], 0.9
    np.testing.assert_array_equal(found.values, expected)
    assert found.values.dtype == np.float32 and found.origin.tolist() == [0, 0]


@settings(max_examples=100, deadline=None)
@given(
    st.floats(20, 900),
    st.floats(0, 0.9),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 899),
    st.integers(0, 1),
)
def test_grids_of_any_step_overlap_and_beginning_keep_their_scores(side, overlap, columns, rows, begin, rounds):
    """Also where places are rounded down to whole pixels."""
    step = side * (1 - overlap)
    if step < 4:
        return
    xy = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2) * step + min(begin, step)
    xy = np.floor(xy).astype(np.int64) if rounds else xy
    score = np.random.default_rng(columns).random(len(xy))
    size = (int(xy[:, 0].max() + side) + 1, int(xy[:, 1].max() + side) + 1)
    found = score_map([tiles(xy, score)], size, side, step)
    known = np.isfinite(found.values)
    np.testing.assert_array_equal(found.values[known], score.astype(np.float32))
    at = np.argwhere(known)
    assert (np.ptp(at, axis=0) == [rows - 1, columns - 1]).all()
    centre = found.origin + (at[0][::-1] + 0.5) * found.step
    np.testing.assert_allclose(centre, xy[0] + side / 2, atol=1e-6)
    assert (found.origin <= 0).all() and (found.origin > -step).all()


def test_tiles_of_several_grids_in_one_pixel_have_their_mean():
    found = score_map([tiles([(0, 0), (10, 0)], [0.2, 0.6])], (224, 224), 224, 224)
    assert found.values.tolist() == [[pytest.approx(0.4)]]


def test_no_tiles_make_a_map_of_nothing():
    found = score_map([], (1000, 500), 224, 224)
    assert found.values.shape == (3, 5) and np.isnan(found.values).all()


def test_a_map_that_is_too_large_is_refused():
    with pytest.raises(UserError, match="a score map of 100,000×80,000 pixels, 8,000,000,000 in all; at most 250,0"):
        score_map([tiles([(0, 0)], [0.5])], (100_000, 80_000), 1, 1)


@pytest.mark.parametrize("shape", [(1, 1), (256, 256), (257, 3), (700, 1100)])
def test_levels_halve_until_they_are_small(shape):
    values = np.random.default_rng(0).random(shape).astype(np.float32)
    values[values < 0.4] = np.nan
    levels = list(pyramid(values))
    assert len(levels) == 1 + max(0, math.ceil(math.log2(max(shape) / 256)))
    for fine, coarse in itertools.pairwise(levels):
        assert coarse.shape == (-(-fine.shape[0] // 2), -(-fine.shape[1] // 2))
        for row, column in [(0, 0), (coarse.shape[0] - 1, coarse.shape[1] - 1), (coarse.shape[0] // 2, 0)]:
            four = fine[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            known = four[np.isfinite(four)].astype(np.float64)
            np.testing.assert_allclose(coarse[row, column], known.mean() if len(known) else np.nan, rtol=1e-6)


def written(tmp_path, mpp=(0.25, 0.5), shape=(600, 900)):
    rows, columns = shape
    xy = np.argwhere(np.ones(shape, bool))[:, ::-1] * 448
    score = np.random.default_rng(1).random(len(xy))
    kept = score > 0.3
    found = score_map([tiles(xy[kept], score[kept])], (columns * 448, rows * 448), 448, 448)
    path = tmp_path / "s.ome.tif"
    write_score_map(path, found, mpp, "S-001 é")
    assert [one.name for one in tmp_path.iterdir()] == ["s.ome.tif"]
    return path, found.values


def test_the_file_is_a_tiled_pyramid_of_what_was_given(tmp_path):
    path, values = written(tmp_path)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome and len(file.series) == 1
        series = file.series[0]
        assert [level.shape for level in series.levels] == [(600, 900), (300, 450), (150, 225)]
        assert all(level.pages[0].is_tiled and level.dtype == np.float32 for level in series.levels)
        assert series.levels[1].pages[0].subfiletype == 1 and len(file.pages) == 1  # the levels are SubIFDs
        for level, expected in zip(series.levels, pyramid(values), strict=True):
            np.testing.assert_array_equal(level.asarray(), expected)


def test_the_file_says_how_large_a_pixel_is_and_where_it_lies(tmp_path):
    path, _ = written(tmp_path)
    with tifffile.TiffFile(path) as file:
        root = ElementTree.fromstring(file.ome_metadata)
        assert file.pages[0].tags["ResolutionUnit"].value == 3
        wide, high = (np.divide(*file.pages[0].tags[f"{axis}Resolution"].value) for axis in "XY")
    np.testing.assert_allclose([wide, high], [1e4 / 112, 1e4 / 224], rtol=1e-6)
    space = {"ome": root.tag[1:].split("}")[0]}
    image = root.find("ome:Image", space)
    pixels, plane = image.find("ome:Pixels", space), image.find("ome:Pixels/ome:Plane", space)
    assert image.get("Name") == "S-001 é"
    assert [pixels.get(f"PhysicalSize{axis}") for axis in "XY"] == ["112.0", "224.0"]
    assert {pixels.get(f"PhysicalSize{axis}Unit") for axis in "XY"} == {"µm"} and pixels.get("Type") == "float"
    assert [float(plane.get(f"Position{axis}")) for axis in "XY"] == [56, 112]


def test_without_a_resolution_there_is_no_physical_size(tmp_path):
    path, values = written(tmp_path, None, (2, 3))
    with tifffile.TiffFile(path) as file:
        assert "PhysicalSize" not in file.ome_metadata
        np.testing.assert_array_equal(file.asarray(), values)
