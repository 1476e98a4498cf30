"""Annotations that QuPath exports as GeoJSON, of version 0.2 and later.

A `FeatureCollection`, a list of features, one feature, or a bare geometry, compressed by gzip or not. A class is a
text, `{name, color}`, `{names: […], color}` for a derived class, or `{name, colorRGB, parentClass}` of older versions.
Measurements, colours and everything else about a feature are left alone. Objects inside others (`childObjects`) are
read. Detections, cells and tiles are what a program found, no annotations: they are left out and counted, as lines are.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.errors import UserError, first_line
from d2l_study.slides.annotated_shapes import AnnotatedShapes
from d2l_study.slides.annotation_classes import JOINT

GZIP = b"\x1f\x8b"
_GEOMETRIES = ("Polygon", "MultiPolygon", "Point", "MultiPoint", "LineString", "MultiLineString", "GeometryCollection")
_OLD_KINDS = {"PathDetectionObject": "detection", "PathCellObject": "cell", "PathTileObject": "tile",
              "TMACoreObject": "tmaCore", "PathRootObject": "root"}  # fmt: skip
"""What version 0.2 wrote as a feature's id."""
_FINDINGS = {"detection": "detection", "cell": "cell", "tile": "tile", "tmaCore": "tissue microarray core",
             "tma_core": "tissue microarray core", "root": "root object"}  # fmt: skip


def read_qupath(path: Path) -> AnnotatedShapes:
    """The annotations of a file; `UserError` if it is not such GeoJSON."""
    found = AnnotatedShapes(path)
    for place, feature in _features(path, _loaded(path)):
        if feature["geometry"] is None:
            continue
        about = feature.get("properties") or {}
        if not isinstance(about, dict):
            raise UserError(f"{path}: {place}.properties: expected an object; found {_shown(about)}")
        kind = about.get("objectType", about.get("object_type", about.get("type", "annotation")))
        kind = _OLD_KINDS.get(str(feature.get("id")), kind)
        if str(kind) in _FINDINGS:
            found.leave_out(_FINDINGS[str(kind)])
        else:
            name = _class(path, place, about.get("classification"))
            _add(found, f"{place}.geometry", feature["geometry"], name)
    return found


def _loaded(path: Path) -> Any:
    try:
        data = path.read_bytes()
        if data.startswith(GZIP):
            data = gzip.decompress(data)
        return json.loads(data.decode("utf-8-sig"))
    except OSError as error:  # gzip's own errors are of this kind
        raise UserError(f"{path}: cannot be read: {error.strerror or first_line(error)}") from None
    except (EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be unpacked by gzip (cut short?): {first_line(error)}") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: not JSON (cut short?): line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of 5,000 digits, or brackets without end
        raise UserError(f"{path}: not JSON: {first_line(error)}") from None
    except MemoryError:
        raise UserError(f"{path}: needs more memory than there is; export the annotations alone") from None


def _features(path: Path, content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each feature that has a geometry, or says that it has none (null), and where it is in the file."""
    kind = content.get("type") if isinstance(content, dict) else None
    if isinstance(content, list):
        waiting = [(f"[{i}]", one) for i, one in enumerate(content)]
    elif kind == "FeatureCollection" and isinstance(content.get("features"), list):
        waiting = [(f"features[{i}]", one) for i, one in enumerate(content["features"])]
    elif kind == "Feature":
        waiting = [("the feature", content)]
    elif kind in _GEOMETRIES:
        waiting = [("the file", {"geometry": content})]
    else:
        raise UserError(f"{path}: JSON, but not GeoJSON: expected a FeatureCollection; found {_shown(content)}")
    waiting.reverse()
    while waiting:
        place, one = waiting.pop()
        if not isinstance(one, dict) or "geometry" not in one:
            raise UserError(f"{path}: {place}: expected a feature with a geometry; found {_shown(one)}")
        yield place, one
        about = one.get("properties")
        children = about.get("childObjects", about.get("children")) if isinstance(about, dict) else None
        if isinstance(children, list):
            waiting += [(f"{place}.childObjects[{i}]", child) for i, child in reversed(list(enumerate(children)))]


def _class(path: Path, place: str, value: Any) -> str:
    """The name of a class, an empty text for none."""
    if value is None or value == {}:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        names = value.get("names", [value.get("name", "")])
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            above = _class(path, place, value.get("parentClass"))
            return JOINT.join([above, *names] if above else names)
    raise UserError(f"{path}: {place}.properties.classification: expected a name; found {_shown(value)}")


def _add(found: AnnotatedShapes, place: str, geometry: Any, name: str) -> None:
    if not isinstance(geometry, dict) or geometry.get("type") not in _GEOMETRIES:
        raise UserError(f"{found.path}: {place}: expected one of {', '.join(_GEOMETRIES)}; found {_shown(geometry)}")
    kind = geometry["type"]
    if kind == "GeometryCollection":
        for i, part in enumerate(_list(found.path, place, geometry.get("geometries"))):
            _add(found, f"{place}.geometries[{i}]", part, name)
        return
    if kind.endswith("LineString"):
        found.leave_out("line")
        return
    values = _list(found.path, place, geometry.get("coordinates"))
    if kind == "Point":
        found.add_points(name, _places(found.path, place, [values]))
    elif kind == "MultiPoint":
        found.add_points(name, _places(found.path, place, values))
    else:
        polygons = [values] if kind == "Polygon" else [_list(found.path, place, one) for one in values]
        found.add_polygons(name, [[_places(found.path, place, ring) for ring in rings] for rings in polygons])


def _places(path: Path, place: str, values: Any) -> np.ndarray:
    """(m, 2) float64 of a list of positions; a third number, a height, is dropped."""
    try:
        if not _list(path, place, values):
            return np.empty((0, 2))
        found = np.array([(x, y) for x, y, *_ in values])
    except (TypeError, ValueError):
        found = np.empty(0, object)
    if found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise UserError(f"{path}: {place}: expected positions [x, y] of finite numbers; found {_shown(values)}")
    return found.astype(np.float64)


def _list(path: Path, place: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{path}: {place}: expected a list of coordinates; found {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, dict):
        return f"an object with {', '.join(repr(key) for key in list(value)[:4]) or 'nothing'}"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
