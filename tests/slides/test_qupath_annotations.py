"""GeoJSON of QuPath, of old versions and new, is read as it is meant; what is none is named in a line."""

import contextlib
import copy
import gzip
import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from d2l_study.errors import UserError
from d2l_study.slides.qupath_annotations import read_qupath

SQUARE = [[[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]]


def feature(geometry=None, classification="Tumor", **properties):
    if isinstance(classification, str):
        classification = {"name": classification, "color": [200, 0, 0]}
    about = {"objectType": "annotation", "classification": classification, **properties}
    return {"type": "Feature", "geometry": geometry or {"type": "Polygon", "coordinates": SQUARE}, "properties": about}


def read(tmp_path, content, name="a.geojson"):
    text = content if isinstance(content, str) else json.dumps(content)
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return read_qupath(path)


@pytest.mark.parametrize(
    "wrap",
    [lambda one: {"type": "FeatureCollection", "features": [one]}, lambda one: [one], lambda one: one],
    ids=["collection", "list", "one"],
)
@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_a_collection_a_list_and_one_feature_are_read(tmp_path, wrap, name):
    ((found, region),) = read(tmp_path, wrap(feature()), name).regions
    assert found == "Tumor" and region.equals(shapely.box(10, 10, 20, 20))


def test_a_bare_geometry_and_a_byte_order_mark_are_read(tmp_path):
    found = read(tmp_path, "\ufeff" + json.dumps({"type": "Polygon", "coordinates": SQUARE}))
    assert [(name, region.area) for name, region in found.regions] == [("", 100)]


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"), ({"name": "Tumor", "colorRGB": -3670016}, "Tumor"),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, "Tumor: Positive"),
        ({"name": "Positive", "colorRGB": -1, "parentClass": {"name": "Tumor", "colorRGB": -2}}, "Tumor: Positive"),
        ("Tumor", "Tumor"), ({}, ""), (None, ""), ({"color": [1, 2, 3]}, ""),
    ],
)  # fmt: skip
def test_classes_of_all_versions(tmp_path, classification, name):
    one = feature()
    one["properties"]["classification"] = classification
    assert [found for found, _ in read(tmp_path, [one]).regions] == [name]


@pytest.mark.parametrize("measurements", [{"Area": 3.5}, [{"name": "Area", "value": 3.5}], [], {"Area": float("nan")}])
@pytest.mark.parametrize("colour", [[255, 0, 0], -65536])
def test_measurements_and_colours_of_both_forms_are_no_matter(tmp_path, measurements, colour):
    one = feature(measurements=measurements, color=colour, isLocked=True, name="left", metadata={"a": "b"})
    one["nucleusGeometry"] = {"type": "Polygon", "coordinates": SQUARE}
    one["geometry"] |= {"plane": {"c": -1, "z": 0, "t": 0}, "isEllipse": True}
    assert len(read(tmp_path, [one]).regions) == 1


def test_holes_several_parts_and_collections(tmp_path):
    hole = [[12, 12], [12, 14], [14, 14], [14, 12], [12, 12]]
    other = [[[30.5, 30], [40, 30], [40, 40.25], [30.5, 30]]]
    several = {"type": "MultiPolygon", "coordinates": [[*SQUARE, hole], other]}
    both = {"type": "GeometryCollection", "geometries": [several, {"type": "Point", "coordinates": [1, 2]}]}
    found = read(tmp_path, [feature(several), feature(both)])
    assert [region.area for _, region in found.regions] == [96 + 9.5 * 10.25 / 2] * 2
    assert [(name, points.tolist()) for name, points in found.points] == [("Tumor", [[1, 2]])]


def test_points_are_read_and_lines_are_counted(tmp_path):
    found = read(tmp_path, [
        feature({"type": "Point", "coordinates": [1.5, 2, 7]}),
        feature({"type": "MultiPoint", "coordinates": [[3, 4], [5, 6]]}, "Immune cells"),
        feature({"type": "LineString", "coordinates": [[3, 4], [5, 6]]}),
        feature({"type": "MultiLineString", "coordinates": [[[3, 4], [5, 6]]]}),
    ])  # fmt: skip
    assert [(name, points.tolist()) for name, points in found.points] == [
        ("Tumor", [[1.5, 2]]), ("Immune cells", [[3, 4], [5, 6]]),
    ]  # fmt: skip
    assert found.notes() == ("2 lines not read",) and found.regions == []


@pytest.mark.parametrize(
    ("about", "read_as"),
    [({"objectType": "annotation"}, True), ({"object_type": "annotation"}, True), ({}, True), ({"type": "tile"}, False),
     ({"objectType": "detection"}, False), ({"object_type": "cell"}, False), ({"objectType": "tile"}, False)],
)  # fmt: skip
def test_findings_of_a_program_are_no_annotations(tmp_path, about, read_as):
    one = feature() | {"properties": {"classification": {"name": "Tumor", "colorRGB": 1}, **about}}
    found = read(tmp_path, [one])
    assert bool(found.regions) is read_as and bool(found.left_out) is not read_as


@pytest.mark.parametrize(("identity", "read_as"), [("PathAnnotationObject", True), ("PathDetectionObject", False)])
def test_version_02_says_in_the_id_what_a_feature_is(tmp_path, identity, read_as):
    one = feature() | {"id": identity, "properties": {"classification": {"name": "Tumor", "colorRGB": 1}}}
    assert bool(read(tmp_path, [one]).regions) is read_as


def test_objects_within_others_are_read(tmp_path):
    inner = feature(classification="Stroma", childObjects=[feature(classification="Necrosis")])
    found = read(tmp_path, [feature(childObjects=[inner]), feature(classification="Last")])
    assert [name for name, _ in found.regions] == ["Tumor", "Stroma", "Necrosis", "Last"]


@pytest.mark.parametrize(
    ("rings", "area"),
    [
        ([[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]], 50),  # a bow tie is its two triangles
        ([[[0, 0], [10, 0], [10, 10], [0, 10]]], 100),  # not closed
        # what is gone around twice is inside
        ([[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]], 100),
    ],
)
def test_outlines_that_are_not_valid_are_made_so(tmp_path, rings, area):
    ((_, region),) = read(tmp_path, [feature({"type": "Polygon", "coordinates": rings})]).regions
    assert region.is_valid and region.area == pytest.approx(area)


@pytest.mark.parametrize("rings", [[], [[]], [[[1, 1], [1, 1]]], [[[0, 0], [5, 5], [9, 9], [0, 0]]]])
def test_regions_without_an_area_are_counted(tmp_path, rings):
    found = read(tmp_path, [feature({"type": "Polygon", "coordinates": rings})])
    assert found.regions == [] and found.notes() == ("1 empty region not read",)


def test_a_feature_that_says_it_has_no_geometry_is_nothing(tmp_path):
    assert read(tmp_path, [feature() | {"geometry": None}]).regions == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"a\.geojson: not JSON \(cut short\?\): line 1, column 2: "), ('[{"type": "Fea', r"not JSON \(cut short"),
        ("[" * 100_000, "not JSON: "), ("[" + "1" * 5000 + "]", "not JSON: "),
        ({"a": 1}, "JSON, but not GeoJSON: expected a FeatureCollection; found an object with 'a'$"),
        ({"images": [], "annotations": []}, "found an object with 'images', 'annotations'$"), ("3", "not GeoJSON"),
        ([1, 2], r"\[0\]: expected a feature with a geometry; found 1$"),
        ({"type": "FeatureCollection", "features": {}}, "not GeoJSON"),
        ([{"type": "Feature"}], r"\[0\]: expected a feature with a geometry"),
        ([feature({"type": "Circle"})], r"\[0\]\.geometry: expected one of Polygon, .*found an object with 'type'$"),
        ([feature({"type": "Polygon"})], r"\[0\]\.geometry: expected a list of coordinates; found null$"),
        ([feature({"type": "Polygon", "coordinates": [[1, 2], [3, 4]]})], "expected positions .*; found "),
        ([feature({"type": "Polygon", "coordinates": [[["a", 2], [3, 4], [5, 6]]]})], "expected positions"),
        ([feature({"type": "Polygon", "coordinates": [[[None, 2], [3, 4], [5, 6]]]})], "expected positions"),
        ([feature({"type": "Point", "coordinates": [float("nan"), 2]})], r"finite numbers; found \[\[NaN, 2\]\]$"),
        ([feature({"type": "Point", "coordinates": [1]})], "expected positions"),
        ([feature({"type": "Point", "coordinates": [10**400, 1]})], "expected positions"),
        ([feature() | {"properties": [1]}], r"\[0\]\.properties: expected an object; found \[1\]$"),
        ([feature(classification=7)], r"\[0\]\.properties\.classification: expected a name; found 7$"),
        ([feature(classification={"name": 7})], "expected a name"),
        ([feature(childObjects=[3])], r"\[0\]\.childObjects\[0\]: expected a feature"),
    ],
)  # fmt: skip
def test_what_is_no_geojson_of_qupath_is_said_in_a_line(tmp_path, content, said):
    with pytest.raises(UserError, match=said) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("damage", [lambda data: data[:40], lambda data: data[:-9] + b"x" * 9, lambda data: data[:2]])
def test_a_damaged_compressed_file_is_said_in_a_line(tmp_path, damage):
    (tmp_path / "a.geojson.gz").write_bytes(damage(gzip.compress(json.dumps([feature()] * 9).encode())))
    with pytest.raises(UserError, match=r"a\.geojson\.gz: cannot be "):
        read_qupath(tmp_path / "a.geojson.gz")


def test_text_that_is_no_utf8_is_said(tmp_path):
    (tmp_path / "a.geojson").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not JSON: "):
        read_qupath(tmp_path / "a.geojson")


def test_tiles_that_this_package_writes_are_left_out_as_findings(tmp_path):
    from d2l_study.slides.geojson import write_regions, write_tile_polygons
    from d2l_study.slides.score_files import TileScores

    scores = TileScores(np.array([[0, 0], [10, 0]]), np.ones(2, np.float32), np.full(2, 0.73))
    write_tile_polygons(tmp_path / "tiles.geojson", [scores], 10, 0.0)
    assert read_qupath(tmp_path / "tiles.geojson").notes() == ("2 tiles not read",)
    write_regions(tmp_path / "regions.geojson.gz", [scores], 10, 0.0)
    ((name, region),) = read_qupath(tmp_path / "regions.geojson.gz").regions
    assert name == "positive" and region.equals(shapely.box(0, 0, 20, 10))


def places_in(value, place=()):
    """The path to every value in a JSON text."""
    yield place
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places_in(value[key], (*place, key))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_value_in_a_wrong_place_is_read_or_said(tmp_path_factory, data):
    several = {"type": "MultiPolygon", "coordinates": [SQUARE, SQUARE]}
    content = {"type": "FeatureCollection", "features": [
        feature(), feature(several, {"names": ["a", "b"], "color": [1, 2, 3]}, childObjects=[feature()]),
        feature({"type": "MultiPoint", "coordinates": [[3, 4], [5, 6]]}),
        feature({"type": "GeometryCollection", "geometries": [{"type": "Point", "coordinates": [1, 2]}]}),
    ]}  # fmt: skip
    content = copy.deepcopy(content)
    *place, last = data.draw(st.sampled_from([one for one in places_in(content) if one]))
    target = content
    for key in place:
        target = target[key]
    target[last] = data.draw(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(["type", "name", "a"]), one),
            max_leaves=4,
        )
    )
    with contextlib.suppress(UserError):
        read(tmp_path_factory.mktemp("fuzz"), content)
