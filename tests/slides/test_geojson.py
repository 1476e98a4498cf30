"""GeoJSON of scores is what RFC 7946 and QuPath demand, and its polygons are where the tiles are."""

import gzip
import itertools
import json
import tracemalloc
import weakref

import numpy as np
import pytest
import shapely
from geojson_files import polygon, read_geojson
from hypothesis import given, settings
from hypothesis import strategies as st

from d2l_study.slides import geojson
from d2l_study.slides.geojson import Classification, TileClasses, write_regions, write_tile_polygons
from d2l_study.slides.score_files import TileScores


def tiles(xy, logit=None):
    xy = np.array(xy).reshape(-1, 2)
    logit = np.linspace(-3, 3, len(xy), dtype=np.float32) if logit is None else np.array(logit, np.float32)
    return TileScores(xy, logit, 1 / (1 + np.exp(-logit.astype(np.float64))))


def test_tiles_are_squares_at_their_places_with_score_class_and_colour(tmp_path):
    path = tmp_path / "s.geojson"
    classes = TileClasses(Classification('tumour "a", é', (1, 2, 3)), Classification("rest", (4, 5, 6)))
    count = write_tile_polygons(path, [tiles([(0, 0), (448, 896)], [-2.5, 1.25])], 448, 0.5, classes)
    features = read_geojson(path)
    assert count == len(features) == 2
    for feature, (x, y), name, colour, logit in zip(
        features, [(0, 0), (448, 896)], ["rest", 'tumour "a", é'], [[4, 5, 6], [1, 2, 3]], [-2.5, 1.25], strict=True
    ):
        assert polygon(feature).equals(shapely.box(x, y, x + 448, y + 448))
        assert feature["properties"]["objectType"] == "tile"
        assert feature["properties"]["classification"] == {"name": name, "color": colour}
        assert feature["properties"]["measurements"] == {
            "score": pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5), "logit": logit,
        }  # fmt: skip


def test_without_a_threshold_tiles_have_no_class(tmp_path):
    write_tile_polygons(tmp_path / "s.geojson", [tiles([(0, 0)])], 10)
    assert "classification" not in read_geojson(tmp_path / "s.geojson")[0]["properties"]


def test_sides_that_are_not_whole_and_differ_are_kept(tmp_path):
    write_tile_polygons(tmp_path / "s.geojson", [tiles([(7, 9)])], (447.3, 448.125))
    assert shapely.get_coordinates(polygon(read_geojson(tmp_path / "s.geojson")[0])).tolist() == [
        [7, 9], [454.3, 9], [454.3, 457.125], [7, 457.125], [7, 9],
    ]  # fmt: skip


@pytest.mark.parametrize("counts", [[], [0], [1], [0, 5, 0], [geojson.TEXTS, 1], [3, geojson.TEXTS + 2]])
def test_any_number_of_tiles_in_any_blocks_makes_a_whole_file(tmp_path, counts):
    blocks = [tiles(np.arange(2 * n).reshape(n, 2)) for n in counts]
    assert write_tile_polygons(tmp_path / "s.geojson", blocks, 1, 0.0) == sum(counts)
    found = json.loads((tmp_path / "s.geojson").read_text())["features"]
    starts = [feature["geometry"]["coordinates"][0][0] for feature in found]
    assert starts == [list(xy) for block in blocks for xy in block.xy.tolist()]


def test_a_compressed_file_holds_the_same_and_is_the_same_each_time(tmp_path):
    given_ = tiles(np.random.default_rng(0).integers(0, 9000, (50, 2)))
    for name in ("a.geojson", "b.geojson.gz", "c.geojson.gz"):
        write_tile_polygons(tmp_path / name, [given_], 448, 0.0)
    plain, packed, again = ((tmp_path / name).read_bytes() for name in ("a.geojson", "b.geojson.gz", "c.geojson.gz"))
    assert gzip.decompress(packed) == plain and packed == again and len(packed) < len(plain) / 3


@pytest.mark.parametrize("write", [write_tile_polygons, write_regions])
def test_a_score_that_json_cannot_hold_leaves_no_file(tmp_path, write):
    wrong = TileScores(np.zeros((1, 2)), np.array([np.inf], np.float32), np.array([np.nan]))
    with pytest.raises(ValueError, match="a tile whose score is not a finite number"):
        write(tmp_path / "s.geojson", [tiles([(0, 0)]), wrong], 10, 0.0)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_tiles(tmp_path, monkeypatch):
    """Blocks are drawn one by one, none is kept, and what is held does not depend on how many there were."""
    monkeypatch.setattr(geojson, "TEXTS", 500)
    held, alive = [], []

    def blocks(count):
        for number in range(count):
            block = tiles(np.stack([np.arange(1000) * 224, np.full(1000, number * 224)], axis=1))
            held.append(tracemalloc.get_traced_memory()[0])
            alive.append(sum(one() is not None for one in made))
            made.append(weakref.ref(block))
            yield block

    peaks = []
    for count in (4, 16):
        made: list[weakref.ref] = []
        tracemalloc.start()
        try:
            assert write_tile_polygons(tmp_path / "s.geojson", blocks(count), 224, 0.0) == 1000 * count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert len(read_geojson(tmp_path / "s.geojson")) == 16_000
    assert max(alive) <= 2 and peaks[1] < 1.1 * peaks[0] < 4e6 and max(held[4:]) < 1.1 * max(held[:4])


# ---- regions
def regions(tmp_path, xy, side=10, logit=None):
    given_ = tiles(xy, np.ones(len(xy)) if logit is None else logit)
    count = write_regions(tmp_path / "r.geojson", given_.blocks(3), side, 0.0)
    features = read_geojson(tmp_path / "r.geojson")
    assert count == len(features)
    return features


def test_neighbours_are_one_region_with_corners_alone(tmp_path):
    (found,) = regions(tmp_path, [(x, y) for y in (0, 10, 20) for x in (0, 10, 20, 30)])
    assert polygon(found).equals(shapely.box(0, 0, 40, 30)) and len(found["geometry"]["coordinates"][0]) == 5
    assert found["properties"]["objectType"] == "annotation"
    assert found["properties"]["classification"] == {"name": "positive", "color": [213, 94, 0]}


def test_a_hole_is_left_open_and_an_island_in_it_is_a_region(tmp_path):
    ring = [(x, y) for x, y in itertools.product(range(0, 50, 10), repeat=2) if x in (0, 40) or y in (0, 40)]
    outer, island = regions(tmp_path, [*ring, (20, 20)])
    assert polygon(outer).equals(shapely.box(0, 0, 50, 50).difference(shapely.box(10, 10, 40, 40)))
    assert len(polygon(outer).interiors) == 1 and polygon(island).equals(shapely.box(20, 20, 30, 30))
    assert [one["properties"]["measurements"]["tiles"] for one in (outer, island)] == [16, 1]


def test_tiles_that_touch_at_a_corner_are_two_regions(tmp_path):
    found = regions(tmp_path, [(0, 0), (10, 10)])
    assert sorted(polygon(one).bounds for one in found) == [(0, 0, 10, 10), (10, 10, 20, 20)]


def test_a_hole_that_touches_the_outline_at_a_corner_is_valid(tmp_path):
    (found,) = regions(tmp_path, [(x, y) for x, y in itertools.product((0, 10, 20), repeat=2) if (x, y) not in
                                  ((10, 10), (0, 0))])  # fmt: skip
    assert polygon(found).area == 700


def test_overlapping_tiles_are_merged_where_they_are(tmp_path):
    (found,) = regions(tmp_path, [(0, 0), (5, 0), (5, 5)])
    assert polygon(found).equals(
        shapely.union_all([shapely.box(x, y, x + 10, y + 10) for x, y in [(0, 0), (5, 0), (5, 5)]])
    )


def test_regions_say_how_their_own_tiles_scored_and_the_largest_is_first(tmp_path):
    logit = [4.0, 1.0, 2.0, -1.0]
    big, small = regions(tmp_path, [(100, 0), (0, 0), (10, 0), (20, 0)], logit=logit)
    score = 1 / (1 + np.exp(-np.array(logit)))
    assert polygon(big).bounds == (0, 0, 20, 10)
    assert big["properties"]["measurements"] == {
        "tiles": 2, "mean score": pytest.approx(score[1:3].mean(), rel=1e-5),
        "largest score": pytest.approx(score[2], rel=1e-5),
    }  # fmt: skip
    assert small["properties"]["measurements"]["tiles"] == 1


def test_nothing_above_the_threshold_makes_an_empty_collection(tmp_path):
    assert regions(tmp_path, [(0, 0)], logit=[-1]) == []


def test_places_rounded_from_a_side_that_is_not_whole_leave_no_gaps(tmp_path):
    side = 447.3
    xy = np.floor(np.stack(np.meshgrid(np.arange(12), np.arange(9)), -1).reshape(-1, 2) * side).astype(np.int64)
    (found,) = regions(tmp_path, xy, side)
    assert polygon(found).bounds == (0, 0, *(xy.max(axis=0) + 448)) and not polygon(found).interiors


@settings(max_examples=150, deadline=None)
@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1),
    st.sampled_from([1, 3, 448]), st.integers(0, 10**6),
)  # fmt: skip
def test_regions_cover_exactly_their_tiles(tmp_path_factory, cells, side, shift):
    """Against cells that are counted and flooded: area, number of regions, of holes, and of tiles in each."""
    xy = np.array(sorted(cells)) * side + shift
    path = tmp_path_factory.mktemp("r") / "r.geojson"
    write_regions(path, [tiles(xy, np.ones(len(xy)))], side, 0.0)
    found = read_geojson(path)
    assert sum(polygon(one).area for one in found) == len(cells) * side**2
    assert sorted(one["properties"]["measurements"]["tiles"] for one in found) == sorted(flooded(cells, diagonal=False))
    outside = {(x, y) for x in range(-1, 9) for y in range(-1, 9)} - cells
    assert sum(len(polygon(one).interiors) for one in found) >= len(flooded(outside, diagonal=True)) - 1
    merged = shapely.union_all([polygon(one) for one in found])
    assert merged.equals(shapely.union_all(shapely.box(xy[:, 0], xy[:, 1], xy[:, 0] + side, xy[:, 1] + side)))
    assert sum(shapely.get_num_coordinates(polygon(one)) for one in found) <= 5 * len(cells)


def flooded(cells, diagonal):
    """The sizes of the groups of cells that share edges, or corners too."""
    steps = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if diagonal or not dx or not dy]
    left, sizes = set(cells), []
    while left:
        group, waiting = 0, [left.pop()]
        while waiting:
            x, y = waiting.pop()
            group += 1
            near = {(x + dx, y + dy) for dx, dy in steps} & left
            left -= near
            waiting += near
        sizes.append(group)
    return sizes
