"""A manifest of slides: the tiles of `d2l tile`, cut once, with the truth of annotations; what is wrong, by row."""

import csv
import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from slides.make_slides import (
    aperio_slide,
    cut_short,
    generic_slide,
    leica_slide,
    noise,
    ome_slide,
    openslide_file,
    reduced,
    tissue,
)

from d2l_study import cli
from d2l_study.data import ManifestBags
from d2l_study.data.manifest_columns import SLIDE_MANIFEST
from d2l_study.data.manifest_rows import read_rows
from d2l_study.data.manifest_slides import inverted_masks
from d2l_study.errors import UserError
from d2l_study.learning.class_maps import check_images
from d2l_study.slides.tile_file import read_tiles
from d2l_study.study.trial.score_maps import select_images

KEYS = {"cut": "grid", "mpp": 0.5, "patch_size": 32, "folds": 3}


def write(folder, rows, name="slides.csv"):
    columns = dict.fromkeys(key for row in rows for key in row)
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows(rows)
    return folder / name


def load(path, **keys):
    return ManifestBags(path=str(path), **KEYS | keys).load_pool()


def message(path, **keys):
    with pytest.raises(UserError) as caught:
        load(path, **keys)
    return str(caught.value)


def rows(*names, **columns):
    """A bag for each slide, labels in turn 0 and 1. columns: name -> values."""
    return [
        {"bag": name.split(".")[0], "label": i % 2, "path": name} | {key: values[i] for key, values in columns.items()}
        for i, name in enumerate(names)
    ]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The same tissue at 40× and at 20×, a further slide, and an image that does not say its resolution."""
    folder, pixels = tmp_path_factory.mktemp("drawn"), tissue(2000, 1500)
    aperio_slide(folder / "forty.svs", pixels, mpp=0.25, compression="lossless", tile=256)
    ome_slide(folder / "twenty.ome.tif", reduced(pixels, 2), mpp=0.5, compression="lossless", tile=256)
    ome_slide(folder / "other.ome.tif", tissue(1600, 1200, seed=1), mpp=0.25, tile=256)
    Image.fromarray(reduced(tissue(1600, 1200, seed=2), 2)).save(folder / "ten.png")
    return folder


@pytest.fixture
def cohort(drawn, tmp_path, cache):
    """A copy of the test's own."""
    return shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)


NAMES = ("forty.svs", "twenty.ome.tif", "other.ome.tif", "ten.png")
TABLE = rows(*NAMES, mpp=["", "", "", 1.0])


def square(left, top, side, name="Tumor"):
    """A feature of QuPath."""
    ring = [[left, top], [left + side, top], [left + side, top + side], [left, top + side], [left, top]]
    return {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}},
    }  # fmt: skip


def annotate(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path.name


# ---- what it makes


@pytest.mark.slow
def test_its_patches_are_the_tiles_of_the_command(cohort):
    pool = load(write(cohort, TABLE), tissue=True, patch_size=64, mpp=1.0)
    words = ["tile", str(cohort / "slides.csv"), "--mpp", "1", "--size", "64", "--out", str(cohort / "out")]
    assert cli.main(words) == 0
    assert pool.names == ("forty", "twenty", "other", "ten") and pool.bags.label.tolist() == [0, 1, 0, 1]
    assert (pool.bags.instance_label == -1).all()
    for number, name in enumerate(("forty", "twenty.ome", "other.ome", "ten")):
        tiles = read_tiles(cohort / "out" / "patches" / f"{name}_patches.h5")
        xy, _ = pool.instances_in_image(number)
        assert len(tiles) > 3 and np.array_equal(xy, tiles.centres())
        assert pool.tile_side[number].tolist() == list(tiles.side)
        assert pool.images[number] == cohort / NAMES[number]


def test_patches_are_means_over_their_own_area(cohort):
    pool = load(write(cohort, TABLE[:2]))
    pixels = tissue(2000, 1500)
    for bag, step, image in ((0, 64, pixels), (1, 32, reduced(pixels, 2))):
        mine = slice(*pool.bags.offsets[bag : bag + 2])
        corners = pool.xy[mine] - (step - 1) / 2
        assert len(corners) == (2000 // 64) * (1500 // 64)
        for (x, y), patch in zip(corners.astype(int).tolist(), pool.instances[mine], strict=True):
            expected = reduced(image[y : y + step, x : x + step], step // 32)
            assert np.abs(patch.transpose(1, 2, 0).astype(int) - expected).max() <= 1


def test_slides_of_two_magnifications_give_the_same_patches(cohort):
    pool = load(write(cohort, TABLE[:2]), tissue=True)
    forty, twenty = (pool.instances[slice(*pool.bags.offsets[b : b + 2])].astype(int) for b in (0, 1))
    assert forty.shape == twenty.shape and len(forty) > 100
    assert np.abs(forty - twenty).max() <= 2


def test_strides_overlap_or_leave_gaps(cohort):
    path = write(cohort, rows("forty.svs", "other.ome.tif"))
    for stride in (16, 48):
        pool = load(path, stride=stride)
        x = np.unique(pool.xy[: pool.bags.offsets[1], 0])
        assert set(np.diff(x)) == {2 * stride} and x[0] == 31.5


@pytest.mark.slow
def test_what_is_cut_is_kept_and_found_again(cohort, cache):
    path = write(cohort, TABLE[:3])
    first = load(path, tissue=True)
    entries = sorted(p.name for p in cache.glob("manifest-*") if p.is_dir())
    again = load(path, tissue=True)
    assert again.checksum == first.checksum and np.array_equal(again.instances, first.instances)
    assert sorted(p.name for p in cache.glob("manifest-*") if p.is_dir()) == entries
    assert len({load(path, **keys).checksum for keys in (
        {}, {"tissue": True}, {"mpp": 0.6}, {"stride": 16}, {"tissue": True, "least_tissue": 0.9},
    )}) == 5  # fmt: skip


def test_bags_of_several_slides_of_which_one_is_glass(cohort):
    aperio_slide(cohort / "glass.svs", np.full((900, 1200, 3), 243, np.uint8))
    table = rows("forty.svs", "other.ome.tif", "glass.svs")
    table[2]["bag"] = "forty"
    pool = load(write(cohort, table), tissue=True)
    assert pool.names == ("forty", "other") and set(pool.image[: pool.bags.offsets[1]]) == {0}
    assert "bag 'glass' has no tile: no tissue found in glass" in message(
        write(cohort, rows("forty.svs", "other.ome.tif", "glass.svs")), tissue=True
    )


def test_without_a_column_of_bags_each_slide_is_one(cohort):
    table = [{key: value for key, value in row.items() if key != "bag"} | {"patient": "ABAB"[i]}
             for i, row in enumerate(TABLE)]  # fmt: skip
    pool = load(write(cohort, table), mpp=1.0)
    assert pool.names == ("forty", "twenty.ome", "other.ome", "ten") and pool.group_names == ("A", "B")
    aperio_slide(cohort / "ten.svs", tissue(900, 700, seed=3))
    assert load(write(cohort, [*table, table[3] | {"path": "ten.svs"}]), mpp=1.0).names == (*NAMES, "ten.svs")
    (cohort / "more").mkdir()
    aperio_slide(cohort / "more" / "forty.svs", tissue(900, 700, seed=4))
    found = load(write(cohort, [*table[:2], table[0] | {"path": "more/forty.svs"}])).names
    assert found == ("forty.svs", "twenty.ome.tif", "more/forty.svs")
    assert "row 4: the same image as row 2" in message(write(cohort, [*table[:2], table[0]]))


def test_without_mpp_all_is_as_before(cohort):
    Image.fromarray(noise(64, 48)).save(cohort / "a.png")
    Image.fromarray(noise(64, 48, 1)).save(cohort / "b.png")
    path = write(cohort, rows("a.png", "b.png", mpp=[0.25, "x"], annotation=["", "nowhere.geojson"]))
    pool = ManifestBags(path=str(path), cut="grid", patch_size=16, folds=3).load_pool()
    assert pool.bags.sizes.tolist() == [12, 12] and pool.tile_side is None
    assert any("left alone: mpp, annotation" in note for note in pool.notes)
    keys = ManifestBags(path=str(path), cut="grid", patch_size=16, folds=3)
    assert not set(keys.identity()) & set(ManifestBags.SLIDE_KEYS)


# ---- truth


def test_the_truth_of_tiles_is_that_of_the_annotation(cohort):
    name = annotate(cohort / "other.geojson", square(100, 200, 500))
    path = write(cohort, rows("forty.svs", "other.ome.tif", annotation=["negative", name]))
    for coverage in (0.25, 0.5, 1.0):
        pool = load(path, coverage=coverage)
        corners = pool.xy - 31.5
        shares = np.ones(len(corners))
        for axis, low in ((0, 100), (1, 200)):
            inside = np.minimum(corners[:, axis] + 64, low + 500) - np.maximum(corners[:, axis], low)
            shares *= np.clip(inside, 0, 64) / 64
        expected = np.where(pool.image == 1, shares >= coverage, False)
        assert expected.sum() > 20 and np.array_equal(pool.bags.instance_label, expected.astype(np.int8))


def test_it_is_said_where_qupath_shows_a_part_of_an_annotated_slide(cohort, capsys):
    leica_slide(cohort / "leica.scn", tissue(640, 480), (2048, 1024), (1024, 256))
    names, mpp = ("forty.svs", "leica.scn"), [0.25, 0.5]
    load(write(cohort, rows(*names, mpp=mpp), "bare.csv"))
    assert "QuPath" not in capsys.readouterr().err
    drawn = annotate(cohort / "leica.geojson", square(1100, 300, 400))
    load(write(cohort, rows(*names, mpp=mpp, annotation=["negative", drawn])))
    assert "QuPath shows only the scanned part of leica.scn (from x 1,024, y 256)" in capsys.readouterr().err


def test_a_slide_without_annotation_is_unknown_not_negative(cohort):
    name = annotate(cohort / "other.geojson", square(100, 200, 500))
    pool = load(write(cohort, rows("forty.svs", "other.ome.tif", "twenty.ome.tif", annotation=["", name, "negative"])))
    truth = [set(pool.bags.instance_label[pool.image == i].tolist()) for i in range(3)]
    assert truth == [{-1}, {0, 1}, {0}]


def test_classes_of_annotations_are_named(cohort):
    name = annotate(
        cohort / "o.geojson", square(100, 200, 300), square(500, 200, 300, "Stroma"), square(900, 0, 200, "Fat")
    )
    path = write(cohort, rows("forty.svs", "other.ome.tif", annotation=["", name]))
    assert message(path).endswith("say which are positive (data.positive_classes)")
    one, two = (load(path, positive_classes=classes) for classes in ("Tumor", "Tumor, Fat"))
    first, second = ((pool.bags.instance_label == 1).sum() for pool in (one, two))
    assert 0 < first < second
    some = load(path, positive_classes="Tumor", negative_classes="Stroma")
    assert set(some.bags.instance_label[some.image == 1].tolist()) == {-1, 0, 1}
    assert "Tumour" in message(path, positive_classes="Tumour")


def test_the_only_class_is_that_of_all_slides(cohort):
    """Of a class that stands alone on its slide nobody knows whether it is positive."""
    tumour = annotate(cohort / "o.geojson", square(100, 200, 300), square(500, 200, 300, "Ignore*"))
    healthy = annotate(cohort / "t.geojson", square(100, 200, 300, "Normal"))
    table = rows(*NAMES[:3], annotation=["negative", healthy, tumour])
    table[2]["label"] = 1
    path = write(cohort, table)
    assert message(path).endswith(
        "slides.csv: column annotation: 2 classes, each alone on its slide (Normal in t.geojson, Tumor in o.geojson); "
        "say which are positive (data.positive_classes)"
    )
    both = load(path, positive_classes="Tumor, Normal")
    assert [int((both.bags.instance_label[both.image == i] == 1).sum() > 0) for i in range(3)] == [0, 1, 1]
    annotate(cohort / "t.geojson", square(100, 200, 300, "tumor"))  # the same, written in another way
    assert np.array_equal(load(path).bags.instance_label, both.bags.instance_label)


def test_masks_are_read_too(cohort):
    mask = np.zeros((300, 400), np.uint8)
    mask[50:150, 100:250] = 1
    Image.fromarray(mask).save(cohort / "mask.png")  # a quarter of the size of the slide
    pool = load(write(cohort, rows("forty.svs", "other.ome.tif", annotation=["", "mask.png"])))
    corners = pool.xy[pool.image == 1] - 31.5
    inside = (corners >= (400, 200)).all(axis=1) & (corners + 64 <= (1000, 600)).all(axis=1)
    assert (pool.bags.instance_label[pool.image == 1][inside] == 1).all() and inside.sum() > 20


def test_results_of_masks_of_which_0_is_white_are_others_than_before(cohort):
    """Those of a version that read them inverted are not found again, and all others are."""
    mask = np.zeros((300, 400), np.uint8)
    mask[50:150, 100:250] = 255
    tifffile.imwrite(cohort / "black.tif", mask)
    tifffile.imwrite(cohort / "white.tif", 255 - mask, photometric="miniswhite")
    table = [rows("forty.svs", "other.ome.tif", annotation=["", name]) for name in ("black.tif", "white.tif")]
    black, white = (load(write(cohort, one)) for one in table)
    assert np.array_equal(black.bags.instance_label, white.bags.instance_label)
    settings = [inverted_masks(read_rows(write(cohort, one), cohort, SLIDE_MANIFEST)) for one in table]
    assert settings == [{}, {"masks of which 0 is white": 1}]


def test_positive_tiles_of_a_negative_bag_are_refused(cohort):
    name = annotate(cohort / "f.geojson", square(100, 200, 640))
    path = write(cohort, rows("forty.svs", "other.ome.tif", annotation=[name, ""]))
    assert message(path).endswith("row 2, column annotation: 99 tiles positive, but bag 'forty' has label 0")


# ---- what is wrong


def test_all_that_is_wrong_is_said_with_its_row(cohort):
    cut_short(generic_slide(cohort / "broken.tif", noise(900, 700)))
    openslide_file(cohort, "small.svs")
    aperio_slide(cohort / "coarse.svs", tissue(900, 700), mpp=1.0)
    (cohort / "text.geojson").write_text("no annotation")
    table = rows(
        "forty.svs", "ten.png", "broken.tif", "small.svs", "coarse.svs", "other.ome.tif",
        annotation=["", "", "", "", "", "text.geojson"],
    )  # fmt: skip
    found = message(write(cohort, table)).splitlines()
    assert found[0].endswith("slides.csv: 5 problems")
    for line, words in zip(found[1:], (
        "row 3, column path: ten.png does not say its resolution, which data.mpp needs: give it in a column mpp",
        "row 4, column path: ",
        "row 5, column path: small.svs has 16×16 pixels, smaller than a tile of 32.06×32.06 (data.patch_size: 32, of",
        "its pixels are 1 µm, too coarse for patches at 0.5 µm; expected at most 0.625 µm",
        "row 7, column annotation: ",
    ), strict=True):  # fmt: skip
        assert words in line


def test_slides_without_a_resolution_of_patches_are_answered_with_the_key(cohort):
    assert message(write(cohort, rows("forty.svs", "ten.png")), mpp=None, tissue=False).endswith(
        "expected an 8-bit RGB PNG, TIFF, BMP or JPEG; slides are read with data.mpp, the resolution of patches"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mpp": ["0", ""]}, "row 2, column mpp: '0' is no resolution; expected µm per pixel, such as 0.25"),
        ({"mpp": ["0,25", ""]}, "decimals are written with a point"),
        ({"annotation": ["none.xml", ""]}, "row 2, column annotation: 'none.xml': no such file"),
        ({"annotation": ["", "negative"]}, "row 3, column annotation: 'negative', but bag 'other' has label 1"),
    ],
)
def test_wrong_cells(cohort, changes, words):
    assert words in message(write(cohort, rows("forty.svs", "other.ome.tif", **changes)))


def test_a_slide_has_one_resolution(cohort):
    table = rows("forty.svs", "other.ome.tif", "forty.svs", mpp=[0.25, "", 0.5])
    table[2]["bag"] = "again"
    for row, group in zip(table, "ABA", strict=True):
        row["group"] = group
    assert "row 4, column mpp: forty.svs has another one in row 2" in message(write(cohort, table))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"cut": "points"},
            "data.mpp: 0.5: patches of slides are those of a grid; expected data.cut: grid, not po",
        ),
        ({"cut": None}, "expected data.cut: grid, not null"),
        ({"mpp": None, "tissue": True}, "data.tissue: True does nothing without data.mpp"),
        ({"mpp": None, "coverage": 0.3}, "data.coverage: 0.3 does nothing without data.mpp"),
    ],
)
def test_keys_that_do_not_go_together(cohort, keys, words):
    assert words in message(write(cohort, TABLE), **keys)


# ---- what follows


def test_what_sees_images_whole_is_not_for_slides(cohort):
    path = write(cohort, rows(*NAMES, mpp=["", "", "", 1], split=["train", "train", "val", "test"]))
    data = ManifestBags(path=str(path), **KEYS | {"mpp": 1.0})
    pool = data.load_pool()
    replicate = data.replicate(pool, 0, 1)
    assert select_images(replicate) == []
    with pytest.raises(UserError, match="patches of slides"):
        check_images(pool)
