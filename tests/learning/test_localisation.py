"""Localisation against independent calculations: scikit-learn, and FROC written out with loops over tiles, scores and
images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from d2l_study.learning import metrics
from d2l_study.learning.localisation import (
    FALSE_POSITIVES,
    by_image,
    dice,
    find_detections,
    froc,
    froc_curve,
    image_average_precision,
    image_dice,
    lesions,
    mean_by_image,
    suppressed_maxima,
    tile_maps,
)


def grid(rows, columns, step=1.0, origin=(0.0, 0.0)):
    """(rows · columns, 2) places, row by row."""
    y, x = np.mgrid[:rows, :columns]
    return np.stack([x.ravel(), y.ravel()], axis=1) * step + np.asarray(origin)


# ---- by image
@st.composite
def images(draw):
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.integers(0, 2, count), rng.integers(-3, 4, count).astype(float), rng.integers(0, 6, count) * 7


@settings(max_examples=80, deadline=None)
@given(images())
def test_figures_by_image_are_those_of_scikit_learn_for_each_image(case):
    truth, score, image = case
    both = [one for one in np.unique(image) if len(np.unique(truth[image == one])) == 2]
    positive = [one for one in np.unique(image) if truth[image == one].any()]
    called = score > 0
    for metric, second, reference, there in (
        (metrics.auc, score, roc_auc_score, both), (image_average_precision, score, average_precision_score, both),
        (image_dice, called, f1_score, positive),
    ):  # fmt: skip
        wanted = [reference(truth[image == one], second[image == one]) for one in there]
        found = mean_by_image(metric, truth, second, image)
        assert found == pytest.approx(np.mean(wanted)) if wanted else math.isnan(found)
        values = by_image(metric, truth, second, image)
        assert values[~np.isnan(values)] == pytest.approx(wanted) and len(values) == len(np.unique(image))


def test_dice_is_f1_and_undefined_where_there_is_nothing():
    rng = np.random.default_rng(0)
    truth, called = rng.integers(0, 2, 50), rng.random(50) < 0.3
    assert dice(truth, called) == pytest.approx(f1_score(truth, called))
    nothing, something = np.zeros(3, bool), np.array([True, False, False])
    assert math.isnan(dice(np.zeros(3), nothing)) and dice(np.zeros(3), something) == 0
    assert math.isnan(image_dice(np.zeros(3), something)) and image_dice(something.astype(int), nothing) == 0
    assert math.isnan(mean_by_image(image_dice, np.empty(0), np.empty(0, bool), np.empty(0)))


# ---- grids
@pytest.mark.parametrize("step", [1.0, 4.5, 256.0, 447.6])
def test_tiles_touch_in_eight_directions_whatever_the_step_and_rounding(step):
    xy = np.round(grid(4, 5, step, (1003, 77)), 0 if step > 1 else 6)
    maps = tile_maps(np.zeros(20, int), xy)
    assert maps.images == 1
    touching = {frozenset(pair) for pair in maps.pairs.tolist()}
    wanted = {
        frozenset((a, b)) for a in range(20) for b in range(a)
        if max(abs(a // 5 - b // 5), abs(a % 5 - b % 5)) == 1
    }  # fmt: skip
    assert touching == wanted and len(maps.pairs) == len(wanted)


def test_each_image_has_its_own_step_and_tiles_of_two_images_never_touch():
    xy = np.concatenate([grid(3, 3, 224), grid(3, 3, 112)])
    order = np.random.default_rng(1).permutation(18)
    maps = tile_maps(np.repeat([40, 7], 9)[order], xy[order])
    assert maps.images == 2 and len(maps.pairs) == 2 * 20
    assert (maps.image[maps.pairs[:, 0]] == maps.image[maps.pairs[:, 1]]).all()


def test_tissue_in_fragments_is_still_a_grid_and_scattered_nuclei_are_none():
    first, second = grid(6, 6, 256), grid(4, 5, 256, (5000, 3111))
    alone = np.array([[9000.0, 9000.0]])
    maps = tile_maps(np.zeros(57, int), np.concatenate([first, second, alone]))
    assert maps is not None and not np.any(maps.pairs == 56)
    rng = np.random.default_rng(2)
    for count in (30, 300):
        nuclei = rng.uniform(0, 500, (count, 2))
        assert tile_maps(np.zeros(count, int), nuclei) is None
        assert tile_maps(np.zeros(count, int), np.round(nuclei)) is None
    assert tile_maps(np.arange(6) // 2, rng.uniform(0, 9, (6, 2))) is None  # pairs of places tell nothing
    assert tile_maps(np.zeros(9, int), np.full((9, 2), np.nan)) is None
    assert tile_maps(np.zeros(9, int), np.zeros((9, 2))) is None
    assert tile_maps(np.zeros(0, int), np.zeros((0, 2))) is None


@pytest.mark.parametrize(
    ("places", "wanted"),
    [
        ([(0, 0), (4, 0)], []),
        ([(0, 0), (1, 1)], [(0, 1)]),
        ([(0, 0), (4, 0), (0, 5)], []),
        ([(0, 0), (4, 0), (4, 1)], [(1, 2)]),
        ([(0, 0), (4, 0), (0, 5), (5, 4), (9, 9)], []),
        ([(0, 0), (4, 0), (0, 5), (5, 4), (5, 5), (9, 9)], [(3, 4)]),
        ([(0, 0), (0, 0)], [(0, 1)]),
    ],
)
@pytest.mark.parametrize("steps", [(256,), (256, 112), (112, 256)])
def test_tiles_that_stand_alone_touch_none_and_few_have_the_step_of_the_other_images(places, wanted, steps):
    whole = np.concatenate([grid(10, 10, step) for step in steps])
    image = np.repeat(np.arange(len(steps)), 100)
    places = np.array(places) * 256.0
    maps = tile_maps(np.concatenate([image, np.full(len(places), 9)]), np.concatenate([whole, places]))
    first = len(whole)
    assert sorted((min(p) - first, max(p) - first) for p in maps.pairs.tolist() if max(p) >= first) == wanted


def test_lesions_are_connected_across_corners_and_apart_by_a_tile():
    truth = np.array([
        [1, 0, 0, 1],
        [0, 1, 0, 1],
        [0, -1, 0, 0],
        [1, 1, 0, 1],
    ])  # fmt: skip
    found = lesions(tile_maps(np.zeros(16, int), grid(4, 4)), truth.ravel()).reshape(4, 4)
    assert (found >= 0).tolist() == (truth == 1).tolist()
    assert found[0, 0] == found[1, 1] and found[0, 3] == found[1, 3] and found[3, 0] == found[3, 1]
    assert len({found[0, 0], found[0, 3], found[3, 0], found[3, 3]}) == 4


def test_non_maximum_suppression_takes_the_highest_and_what_touches_it():
    score = np.array([
        [1.0, 2.0, 3.0, 2.0],
        [1.0, 5.0, 4.0, 2.5],
        [0.0, 1.0, 1.0, 1.0],
        [0.0, 0.0, 0.0, 6.0],
    ])  # fmt: skip
    found = suppressed_maxima(tile_maps(np.zeros(16, int), grid(4, 4)), score.ravel())
    assert found.tolist() == [15, 5, 7, 12]  # of two zeros that touch the first


# ---- FROC, written out
def naive_froc(xy, image, truth, score, weight=None):
    """By definition: lesions by flooding, detections by taking the maximum off the map, and for every threshold a count
    over all images."""
    names = np.unique(image)
    hits, false, sizes, evaluated = [], [], 0.0, 0.0
    for position, one in enumerate(names):
        times = 1 if weight is None else weight[position]
        mine = [i for i in range(len(image)) if image[i] == one]
        if all(truth[i] < 0 for i in mine):
            continue
        evaluated += times

        def touch(a, b):
            return a != b and np.abs(xy[a] - xy[b]).max() < 1.5

        left, regions = {i for i in mine if truth[i] == 1}, []
        while left:
            region, front = set(), [left.pop()]
            while front:
                tile = front.pop()
                region.add(tile)
                near = {i for i in left if touch(i, tile)}
                left -= near
                front += near
            regions.append(region)
        sizes += times * len(regions)
        map_ = {i: score[i] for i in mine}
        detections = []
        while map_:
            top = max(map_.values())
            tile = min(i for i, value in map_.items() if value == top)
            detections.append(tile)
            map_ = {i: value for i, value in map_.items() if i != tile and not touch(i, tile)}
        for region in regions:
            inside = [score[i] for i in detections if i in region]
            if inside:
                hits.append((max(inside), times))
        false += [(score[i], times) for i in detections if truth[i] == 0]
    if not sizes or not evaluated:
        return math.nan
    points = [(0.0, 0.0)]
    for threshold in sorted({s for s, _ in hits + false}, reverse=True):
        points.append((sum(t for s, t in false if s >= threshold) / evaluated,
                       sum(t for s, t in hits if s >= threshold) / sizes))  # fmt: skip
    read = []
    for rate in FALSE_POSITIVES:
        before = [p for p in points if p[0] <= rate][-1]
        after = next((p for p in points if p[0] > rate), None)
        share = 0.0 if after is None else (rate - before[0]) / (after[0] - before[0])
        read.append(before[1] + share * ((after or before)[1] - before[1]))
    return sum(read) / len(read)


@st.composite
def score_maps(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 4))
    holes, levels = draw(st.sampled_from([1.0, 0.8])), draw(st.sampled_from([3, 1000]))
    positive, unknown = draw(st.sampled_from([0.0, 0.15, 0.5])), draw(st.sampled_from([0.0, 0.2]))
    parts = [grid(draw(st.integers(2, 6)), draw(st.integers(2, 6))) for _ in range(count)]
    parts = [part[(rng.random(len(part)) < holes) | (np.arange(len(part)) < 4)] for part in parts]
    image = np.repeat(rng.permutation(count) * 3, [len(part) for part in parts])
    size = len(image)
    truth = np.where(rng.random(size) < unknown, -1, (rng.random(size) < positive).astype(int))
    truth[image == draw(st.sampled_from([-1, 0]))] = -1  # a whole image may be unknown
    score = rng.integers(0, levels, size) + 0.5 * levels * (truth == 1)
    return np.concatenate(parts), image, truth, score, rng.integers(0, 4, count).astype(float)


@settings(max_examples=100, deadline=None)
@given(score_maps())
def test_froc_is_what_its_definition_gives(case):
    xy, image, truth, score, weight = case
    maps = tile_maps(image, xy)
    if maps is None:  # full of holes
        return
    found = find_detections(maps, truth, score)
    assert froc(found) == pytest.approx(naive_froc(xy, image, truth, score), nan_ok=True)
    assert froc(found, weight) == pytest.approx(naive_froc(xy, image, truth, score, weight), nan_ok=True)


@st.composite
def sparse_maps(draw):
    """A whole grid, and images of a few tiles of its step at places drawn at random."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    parts = [grid(6, 6)]
    for _ in range(draw(st.integers(1, 4))):
        count, side = draw(st.integers(1, 7)), draw(st.sampled_from([3, 12]))
        part = grid(side, side)[rng.choice(side * side, count, replace=False)]
        far = np.abs(part[:, None] - part).max(axis=2) + np.where(np.eye(count), 99, 0)
        if count >= 4 and far.min() > 1 and (far.min(axis=1) == far.min()).all():
            continue  # a grid of a larger step, as far as places tell
        parts.append(part)
    image = np.repeat(rng.permutation(len(parts)), [len(part) for part in parts])
    truth = rng.choice([0, 1, 1, -1], len(image))
    return np.concatenate(parts), image, truth, rng.permutation(len(image)).astype(float)


@settings(max_examples=100, deadline=None)
@given(sparse_maps())
def test_froc_is_what_its_definition_gives_where_images_have_few_tiles(case):
    xy, image, truth, score = case
    maps = tile_maps(image, xy)
    if maps is None:  # more tiles that stand alone than others
        return
    assert froc(find_detections(maps, truth, score)) == pytest.approx(naive_froc(xy, image, truth, score), nan_ok=True)


def test_froc_counts_a_lesion_once_and_false_positives_an_image():
    """Two images of 1 × 12 tiles. The first has two lesions, of which one is hit twice; false ones score 5 and 1."""
    xy = np.concatenate([grid(1, 12)] * 2)
    image = np.repeat([0, 1], 12)
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0] + [0] * 12)
    score = np.array([9, 0, 8, 0, 0, 0, 5, 0, 0, 3, 0, 0] + [0] * 5 + [4] + [0] * 6, float)
    found = find_detections(tile_maps(image, xy), truth, score)
    above = found.score > 0
    assert list(zip(found.score[above], found.hit[above], strict=True)) == [
        (9, True), (5, False), (4, False), (3, True),
    ]  # fmt: skip
    assert found.lesions.tolist() == [2, 0] and found.evaluated.all()
    false, sensitivity = froc_curve(found)
    assert false[:5].tolist() == [0, 0, 0.5, 1, 1] and sensitivity[:5].tolist() == [0, 0.5, 0.5, 0.5, 1]
    assert froc(found) == pytest.approx((0.5 + 0.5 + 1 + 1 + 1 + 1) / 6)


def test_a_perfect_map_has_1_and_a_map_without_lesions_none():
    xy, image = np.concatenate([grid(5, 5)] * 3), np.repeat([0, 1, 2], 25)
    truth = (np.arange(75) % 25 == 12).astype(int) * (image < 2)
    maps = tile_maps(image, xy)
    assert froc(find_detections(maps, truth, truth.astype(float))) == 1
    assert math.isnan(froc(find_detections(maps, np.zeros(75, int), truth.astype(float))))
    unknown = np.where(image == 1, -1, truth)
    found = find_detections(maps, unknown, truth.astype(float))
    assert found.evaluated.tolist() == [True, False, True] and froc(found) == 1
    assert not len(froc_curve(find_detections(maps, np.full(75, -1), truth.astype(float)))[0])


def test_a_map_of_a_large_slide_is_scored_in_seconds():
    """300 × 300 tiles."""
    rng = np.random.default_rng(3)
    maps = tile_maps(np.zeros(90_000, int), grid(300, 300, 224))
    truth = (rng.random(90_000) < 0.05).astype(int)
    found = find_detections(maps, truth, truth + rng.normal(0, 1, 90_000))
    assert 0 < froc(found) < 1 and found.lesions[0] == lesions(maps, truth).max() + 1
