"""What annotations say of tiles: exact shares, the smaller of overlapping regions, points, and what is not known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2l_study.errors import UserError
from d2l_study.slides.annotated_shapes import AnnotatedShapes
from d2l_study.slides.annotation_classes import NEGATIVE, POSITIVE, UNKNOWN, AnnotationClasses, other_classes
from d2l_study.slides.annotations import class_taken, read_annotation, tile_truth
from d2l_study.slides.mask_annotation import MaskAnnotation
from d2l_study.slides.region_annotation import RegionAnnotation

TUMOUR = AnnotationClasses(("Tumor",))
GRID = np.stack(np.meshgrid(np.arange(0, 80, 10), np.arange(0, 60, 10)), -1).reshape(-1, 2)


def box(name, x0, y0, x1, y1):
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation", "classification": {"name": name, "colorRGB": -1}}}  # fmt: skip


def points(name, *places):
    return box(name, 0, 0, 1, 1) | {"geometry": {"type": "MultiPoint", "coordinates": [list(one) for one in places]}}


def annotated(tmp_path, *features, classes=TUMOUR, size=(80, 60)):
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return read_annotation(path, size, classes)


# ---- classes
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (["Tumor"], ["Tumor", "Ignore*", "Region*", ""], ""),
        (["Tumor"], ["tumor "], ""),
        (["Tumor", "tumor"], ["Ignore*"], ""),
        ([""], [""], ""),
        (["Tumor"], ["Normal"], "2 classes, each alone on its slide (Tumor in 0.geojson, Normal in 1.geojson); say"),
        (["Tumor"], [""], "(Tumor in 0.geojson, (no class) in 1.geojson); say which are positive"),
        (["Tumor"], ["Tumor: Positive"], "(Tumor in 0.geojson, Tumor: Positive in 1.geojson)"),
    ],
)  # fmt: skip
def test_the_only_class_is_the_same_of_all_files(tmp_path, first, second, said):
    taken = {}
    for number, names in enumerate((first, second)):
        path = tmp_path / f"{number}.geojson"
        path.write_text(
            json.dumps({"type": "FeatureCollection", "features": [box(name, 0, 0, 9, 9) for name in names]})
        )
        classes = AnnotationClasses(required=False)
        taken[path] = class_taken(path, classes)
        assert read_annotation(path, (80, 60), classes).taken == taken[path]
        assert class_taken(path, TUMOUR) == ()  # where one is named, none is taken
    words = other_classes(taken)
    assert (said in words) if said else words == ""


# ---- shares
def test_the_share_of_a_tile_is_exact(tmp_path):
    found = annotated(tmp_path, box("Tumor", 5, 5, 32.5, 20))
    share = found.coverage(np.array([(0, 0), (10, 10), (30, 10), (40, 40), (30, 0)]), 10)
    np.testing.assert_allclose(share, [0.25, 1, 0.25, 0, 0.125], atol=1e-12)
    assert found.coverage(np.array([(0, 0)]), (20, 10))[0] == pytest.approx(75 / 200)
    assert found.coverage(np.empty((0, 2)), 10).shape == (0,)


def test_overlapping_regions_of_a_class_count_once(tmp_path):
    found = annotated(tmp_path, box("Tumor", 0, 0, 8, 10), box("Tumor", 2, 0, 10, 10), box("Tumor", 2, 0, 10, 10))
    assert found.coverage(np.zeros((1, 2)), 10)[0] == 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("PNE"), st.integers(0, 7), st.integers(0, 5), st.integers(1, 8), st.integers(1, 6)),
        min_size=1, max_size=9,
    ),
    st.integers(1, 4), st.booleans(),
)  # fmt: skip
def test_of_overlapping_regions_the_smaller_counts(boxes, side, named):
    """Against cells painted from the largest region to the smallest."""
    shapes = AnnotatedShapes(Path("a"))
    area = {(i, b): b[3] * b[4] for i, b in enumerate(boxes)}
    cells = np.full((20, 20), "." if named else "N")
    for (_, (kind, x, y, wide, high)), _ in sorted(area.items(), key=lambda one: (-one[1], -one[0][0])):
        cells[y : y + high, x : x + wide] = kind
    for kind, x, y, wide, high in boxes:
        shapes.add_polygons(kind, [[np.array([(x, y), (x + wide, y), (x + wide, y + high), (x, y + high)])]])
    classes = AnnotationClasses(("P",), ("N",) if named else (), ("E",), required=False)
    found = RegionAnnotation.of_shapes(shapes, classes, (20, 20))
    xy = np.stack(np.meshgrid(np.arange(0, 14, side), np.arange(0, 14, side)), -1).reshape(-1, 2)
    expected = [cells[y : y + side, x : x + side] for x, y in xy]
    np.testing.assert_allclose(found.coverage(xy, side), [(one == "P").mean() for one in expected], atol=1e-9)
    unknown = [np.isin(one, ["E", "."]).mean() for one in expected]
    np.testing.assert_allclose(found.unknown_share(xy, side), unknown, atol=1e-9)


def test_a_drawn_outline_has_the_area_that_is_counted_in_points_within_it(tmp_path):
    """A shape of many corners, tiles that it cuts: against points, and as a whole."""
    rng = np.random.default_rng(3)
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    outline = np.stack([np.cos(angle), np.sin(angle)], 1) * (20 + 4 * np.sin(9 * angle))[:, None] + [40, 30]
    feature = box("Tumor", 0, 0, 1, 1)
    feature["geometry"]["coordinates"] = [[*outline.tolist(), outline[0].tolist()]]
    found = annotated(tmp_path, feature)
    share = found.coverage(GRID, 10)
    assert share.sum() * 100 == pytest.approx(shapely.Polygon(outline).area, rel=1e-9)
    within = rng.uniform(0, 10, (4000, 2))
    region = shapely.Polygon(outline)
    for (x, y), one in zip(GRID, share, strict=True):
        assert one == pytest.approx(shapely.contains_xy(region, *(within + np.array([x, y])).T).mean(), abs=0.05)


# ---- truth
def test_a_tile_is_positive_from_the_coverage_on(tmp_path):
    found = annotated(tmp_path, box("Tumor", 0, 0, 7, 10))
    for coverage, truth in ((0.1, 1), (0.7, 1), (0.71, 0), (1, 0)):
        assert tile_truth(found, np.zeros((1, 2)), 10, coverage).tolist() == [truth]
    assert tile_truth(found, GRID, 10).dtype == np.int8


@pytest.mark.parametrize("coverage", [0, -0.1, 1.1, float("nan")])
def test_a_coverage_that_is_no_share_is_said(tmp_path, coverage):
    with pytest.raises(UserError, match="expected a number above 0, at most 1"):
        tile_truth(annotated(tmp_path, box("Tumor", 0, 0, 7, 10)), GRID, 10, coverage)


def test_a_tile_is_unknown_where_what_is_excluded_could_make_it_positive(tmp_path):
    found = annotated(tmp_path, box("Tumor", 0, 0, 3, 10), box("Ignore*", 3, 0, 5, 10), box("Ignore*", 20, 0, 24, 10))
    tiles = np.array([(0, 0), (20, 0), (40, 0)])
    np.testing.assert_allclose(found.unknown_share(tiles, 10), [0.2, 0.4, 0])
    assert tile_truth(found, tiles, 10, 0.3).tolist() == [1, -1, 0]
    assert tile_truth(found, tiles, 10, 0.5).tolist() == [-1, 0, 0]
    assert tile_truth(found, tiles, 10, 0.6).tolist() == [0, 0, 0]


def test_where_negatives_are_named_the_rest_is_unknown(tmp_path):
    classes = AnnotationClasses(("Tumor",), ("Stroma",))
    found = annotated(tmp_path, box("Tumor", 0, 0, 10, 10), box("Stroma", 10, 0, 26, 10), classes=classes)
    tiles = np.array([(0, 0), (10, 0), (20, 0), (30, 0)])
    assert tile_truth(found, tiles, 10).tolist() == [1, 0, 0, -1]
    assert tile_truth(found, tiles, 10, 0.3).tolist() == [1, 0, -1, -1]


def test_points_alone_say_what_the_tiles_around_them_are_and_nothing_of_others(tmp_path):
    found = annotated(tmp_path, points("Tumor", (5, 5), (19.5, 0)), points("Stroma", (6, 6), (25, 5)))
    assert found.points.tolist() == [[5, 5], [19.5, 0], [6, 6], [25, 5]]
    assert found.point_label.tolist() == [1, 1, 0, 0]
    assert tile_truth(found, np.array([(0, 0), (10, 0), (20, 0), (30, 0)]), 10).tolist() == [1, 1, 0, -1]


def test_a_point_on_an_edge_is_in_one_tile(tmp_path):
    found = annotated(tmp_path, points("Tumor", (10, 10)))
    positive, _ = found.labelled_points(GRID, 10)
    assert GRID[positive].tolist() == [[10, 10]]


def test_points_beside_regions_add_what_they_say(tmp_path):
    found = annotated(tmp_path, box("Tumor", 0, 0, 10, 10), points("Tumor", (25, 5)), points("Stroma", (5, 5)))
    assert tile_truth(found, np.array([(0, 0), (10, 0), (20, 0)]), 10).tolist() == [1, 0, 1]


# ---- classes
def test_one_class_need_not_be_named(tmp_path):
    found = annotated(tmp_path, box("Metastasis", 0, 0, 10, 10), box("Ignore*", 20, 0, 30, 10),
                      box("Region*", 0, 0, 80, 60), classes=AnnotationClasses())  # fmt: skip
    assert tile_truth(found, GRID, 10).tolist()[:4] == [1, 0, -1, 0]
    assert found.notes == ("1 'Region*' shape not read",)


def test_shapes_without_a_class_are_positive_where_there_are_no_others(tmp_path):
    assert annotated(tmp_path, box("", 0, 0, 10, 10), classes=AnnotationClasses()).coverage(GRID, 10)[0] == 1
    found = annotated(tmp_path, box("", 0, 0, 10, 10), box("Tumor", 10, 0, 20, 10), classes=AnnotationClasses())
    assert found.coverage(GRID, 10)[:2].tolist() == [0, 1] and found.notes == ("1 unclassified shape not read",)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (AnnotationClasses(), r"a\.geojson: 2 classes \(Tumor: Solid, Stroma\); say which are positive$"),
        (AnnotationClasses(("Tumour",)), r"no annotation of 'Tumour' \(found: Tumor: Solid, Stroma, \(no class\)\);"),
        (AnnotationClasses(("a", "b")), r"no annotation of 'a' or 'b' \(found: "),
        (AnnotationClasses(("Stroma",), ("Str*",)), "the class 'Stroma' is named as positive and as negative"),
    ],
)  # fmt: skip
def test_classes_that_do_not_fit_are_said(tmp_path, classes, said):
    with pytest.raises(UserError, match=said):
        annotated(
            tmp_path, box("Tumor: Solid", 0, 0, 9, 9), box("Stroma", 0, 0, 5, 5), box("", 0, 0, 3, 3), classes=classes
        )


@pytest.mark.parametrize("names", [("tumor",), ("TUMOR: solid",), (" Solid ",), ("Tum*",), ("x", "Tumor")])
def test_names_that_mean_a_derived_class(tmp_path, names):
    assert (
        annotated(tmp_path, box("Tumor: Solid", 0, 0, 10, 10), classes=AnnotationClasses(names)).coverage(GRID, 10)[0]
        == 1
    )


def test_a_file_without_annotations_is_said_unless_that_is_allowed(tmp_path):
    with pytest.raises(UserError, match=r"no annotation of 'Tumor' \(found: none at all\)$"):
        annotated(tmp_path)
    with pytest.raises(UserError, match=r"no annotation of a positive class \(found: Ignore\*\)$"):
        annotated(tmp_path, box("Ignore*", 0, 0, 9, 9), classes=AnnotationClasses())
    found = annotated(tmp_path, classes=AnnotationClasses(("Tumor",), required=False))
    assert tile_truth(found, GRID, 10).tolist() == [0] * len(GRID)
    found = annotated(tmp_path, box("Ignore*", 0, 0, 9, 10), classes=AnnotationClasses(required=False))
    assert tile_truth(found, GRID, 10).tolist() == [-1] + [0] * (len(GRID) - 1)


# ---- files
def test_the_three_kinds_of_files_say_the_same(tmp_path):
    """A tumour with a hole of stroma, something to ignore, in each format."""
    features = [box("Tumor", 8, 4, 40, 36), box("Stroma", 16, 12, 28, 24), box("Ignore*", 48, 0, 80, 20)]
    corners = [(one["properties"]["classification"]["name"], one["geometry"]["coordinates"][0][:4]) for one in features]
    (tmp_path / "a.xml").write_text("<ASAP_Annotations><Annotations>" + "".join(
        f'<Annotation Name="a" Type="Polygon" PartOfGroup="{name}"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(ring))
        + "</Coordinates></Annotation>" for name, ring in corners
    ) + "</Annotations></ASAP_Annotations>")  # fmt: skip
    mask = np.zeros((15, 20), np.uint8)  # of a quarter of the slide
    for value, (_, ring) in zip((1, 2, 3), corners, strict=True):
        (x0, y0), (x1, y1) = np.array(ring[0]) // 4, np.array(ring[2]) // 4
        mask[y0:y1, x0:x1] = value
    Image.fromarray(mask).save(tmp_path / "a.png")
    drawn = annotated(tmp_path, *features)
    asap = read_annotation(tmp_path / "a.xml", (80, 60), TUMOUR)
    painted = read_annotation(tmp_path / "a.png", (80, 60), TUMOUR, {1: "Tumor", 2: "Stroma", 3: "Ignore*"})
    assert isinstance(drawn, RegionAnnotation) and isinstance(painted, MaskAnnotation)
    xy = np.random.default_rng(0).uniform(-10, 80, (300, 2))
    for side in (10, 7.3, (4, 9)):
        for other in (asap, painted):
            np.testing.assert_allclose(other.coverage(xy, side), drawn.coverage(xy, side), atol=1e-9)
            np.testing.assert_allclose(other.unknown_share(xy, side), drawn.unknown_share(xy, side), atol=1e-9)
            np.testing.assert_array_equal(tile_truth(other, xy, side, 0.4), tile_truth(drawn, xy, side, 0.4))
    assert {POSITIVE, NEGATIVE, UNKNOWN} == set(tile_truth(drawn, xy, 10).tolist())


@pytest.mark.parametrize(("x", "wrong"), [(-3.9, False), (83.9, False), (-4.1, True), (84.1, True), (40_000, True)])
def test_shapes_outside_of_the_slide_are_said(tmp_path, x, wrong):
    for feature in (box("Tumor", min(x, 40), 10, max(x, 41), 20), points("Tumor", (x, 10))):
        if wrong:
            with pytest.raises(UserError, match=r"a shape reaches to x .*, but the slide has 80×60 pixels \(drawn on"):
                annotated(tmp_path, feature)
        else:
            annotated(tmp_path, feature)
        annotated(tmp_path, feature, size=None)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "this is an empty file of 0 bytes"), (b"\xff\xd8\xff\xe0", "a JPEG image, whose values are not those"),
        (b"PK\x03\x04abc", "a zip file; unpack it"), (b"\x89HDF\r\n", "an HDF5 file"),
        (b"slide,label\n", r"no annotation \(it begins with b'slide,label\\n'\); expected GeoJSON of QuPath, XML of"),
        (b"<!DOCTYPE html><html>", "a page of the web"), (b"\x89PNG\r\n\x1a\n", "cannot be read as an image"),
        (b"II*\0", "cannot be read as an image"),
    ],
)  # fmt: skip
def test_files_that_are_no_annotation_are_said_in_a_line(tmp_path, content, said):
    (tmp_path / "a b.geojson").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read_annotation(tmp_path / "a b.geojson", (80, 60))
    assert "\n" not in str(error.value)


def test_without_the_package_of_polygons_the_line_that_installs_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(UserError, match=r"needs `pip install 'd2l-study\[wsi\]'`$"):
        annotated(tmp_path, box("Tumor", 0, 0, 10, 10))


def test_a_file_that_is_not_there_and_a_mask_without_a_slide_are_said(tmp_path):
    with pytest.raises(UserError, match=r"none\.xml: no such file$"):
        read_annotation(tmp_path / "none.xml")
    with pytest.raises(UserError, match=r"cannot be read: Is a directory$"):
        read_annotation(tmp_path)
    Image.fromarray(np.ones((3, 3), np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match="a mask says nothing without the size of its slide"):
        read_annotation(tmp_path / "m.png")
