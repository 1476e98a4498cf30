"""Annotations of ASAP, the viewer of the CAMELYON challenges, as its XML files hold them.

The class of an annotation is its group; a group that is part of another is a derived class, `other: group`. Polygons,
rectangles and splines are regions within their points, as in the masks that ASAP itself makes of them; dots and sets of
points are points. Lengths and areas that were measured are left out and counted.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from d2l_study.errors import UserError, first_line
from d2l_study.slides.annotated_shapes import AnnotatedShapes
from d2l_study.slides.annotation_classes import JOINT

_REGIONS = ("polygon", "rectangle", "spline")
_POINTS = ("dot", "pointset")
_NO_GROUP = ("", "none")
_MOST_GROUPS = 20
"""Groups within groups; more are a circle."""


def read_asap(path: Path) -> AnnotatedShapes:
    """The annotations of a file; `UserError` if it is not such XML."""
    root = _root(path)
    above = {one.get("Name", ""): one.get("PartOfGroup", "") for one in root.iter("Group")}
    found = AnnotatedShapes(path)
    for number, one in enumerate(root.iter("Annotation")):
        place = f"annotation {number + 1} ({one.get('Name', 'without a name')})"
        kind = one.get("Type", "").lower()
        name = _class(path, one.get("PartOfGroup", ""), above)
        points = _coordinates(path, place, one)
        if kind in _REGIONS:
            found.add_polygons(name, [[points]])
        elif kind in _POINTS:
            found.add_points(name, points)
        else:
            found.leave_out(f"{one.get('Type') or 'untyped'} annotation")
    return found


def _root(path: Path) -> ElementTree.Element:
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or first_line(error)}") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise UserError(f"{path}: not XML (cut short?): {first_line(error)}") from None
    if root.tag != "ASAP_Annotations":
        known = " (as of Aperio ImageScope, which is not read)" if root.find("Annotation/Regions") is not None else ""
        raise UserError(f"{path}: XML, but not of ASAP: expected <ASAP_Annotations>; found <{root.tag}>{known}")
    return root


def _class(path: Path, group: str, above: dict[str, str]) -> str:
    """The name of a group with those that it is part of, an empty text for none."""
    names: list[str] = []
    while group.strip().lower() not in _NO_GROUP:
        if group in names or len(names) > _MOST_GROUPS:
            raise UserError(f"{path}: the group {group!r} is part of itself")
        names.insert(0, group)
        group = above.get(group, "")
    return JOINT.join(names)


def _coordinates(path: Path, place: str, annotation: ElementTree.Element) -> np.ndarray:
    """(m, 2) float64 in their order."""
    found = []
    for one in annotation.iter("Coordinate"):
        try:
            values = tuple(float(one.attrib[name]) for name in ("Order", "X", "Y"))
        except (KeyError, ValueError):
            values = (math.nan,)
        if not all(math.isfinite(value) for value in values):
            raise UserError(f"{path}: {place}: expected a coordinate with numbers Order, X, Y; found {one.attrib}")
        found.append(values)
    return np.array([(x, y) for _, x, y in sorted(found, key=lambda values: values[0])]).reshape(-1, 2)
