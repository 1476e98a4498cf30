"""XML of ASAP is read as ASAP means it; what is none is named in a line."""

import pytest
import shapely

from d2l_study.errors import UserError
from d2l_study.slides.asap_annotations import read_asap

SQUARE = [(10, 10), (20, 10), (20, 20), (10, 20)]


def annotation(kind="Polygon", group="tumor", points=SQUARE, order=None):
    order = range(len(points)) if order is None else order
    inside = "".join(
        f'<Coordinate Order="{number}" X="{x}" Y="{y}" />' for number, (x, y) in zip(order, points, strict=True)
    )
    return (
        f'<Annotation Name="Annotation 0" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
        f"<Coordinates>{inside}</Coordinates></Annotation>"
    )


def read(tmp_path, *annotations, groups=(("tumor", "None"),)):
    named = "".join(f'<Group Name="{n}" PartOfGroup="{g}" Color="#00ff00"><Attributes /></Group>' for n, g in groups)
    path = tmp_path / "a.xml"
    path.write_text(
        f'<?xml version="1.0"?>\n<ASAP_Annotations>\n\t<Annotations>{"".join(annotations)}</Annotations>\n'
        f"\t<AnnotationGroups>{named}</AnnotationGroups>\n</ASAP_Annotations>\n"
    )
    return read_asap(path)


@pytest.mark.parametrize("kind", ["Polygon", "Rectangle", "Spline"])
def test_regions_are_what_their_points_go_around(tmp_path, kind):
    ((name, region),) = read(tmp_path, annotation(kind)).regions
    assert name == "tumor" and region.equals(shapely.box(10, 10, 20, 20))


def test_points_are_taken_in_their_order(tmp_path):
    shuffled = [SQUARE[i] for i in (2, 0, 3, 1)]
    ((_, region),) = read(tmp_path, annotation(points=shuffled, order=(2, 0, 3, 1))).regions
    assert region.equals(shapely.box(10, 10, 20, 20))


@pytest.mark.parametrize("kind", ["Dot", "PointSet"])
def test_dots_are_points(tmp_path, kind):
    found = read(tmp_path, annotation(kind, "None", [(1.5, 2)]))
    assert [(name, points.tolist()) for name, points in found.points] == [("", [[1.5, 2]])]


def test_a_group_in_a_group_is_a_derived_class(tmp_path):
    groups = [("tumor", "None"), ("metastasis", "tumor"), ("micro", "metastasis")]
    found = read(tmp_path, annotation(group="micro"), annotation(group="alone"), groups=groups)
    assert [name for name, _ in found.regions] == ["tumor: metastasis: micro", "alone"]


def test_what_was_measured_is_counted(tmp_path):
    found = read(tmp_path, annotation("Measurement"), annotation("Measurement"))
    assert found.notes() == ("2 Measurement annotations not read",) and found.regions == []


def test_a_region_of_two_points_has_no_area(tmp_path):
    assert read(tmp_path, annotation(points=SQUARE[:2])).notes() == ("1 empty region not read",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<ASAP_Annotations><Annotations>", r"a\.xml: not XML \(cut short\?\): no element found: line 1"),
        ("<html></html>", r"XML, but not of ASAP: expected <ASAP_Annotations>; found <html>$"),
        ('<Annotations MicronsPerPixel="0.25"><Annotation><Regions/></Annotation></Annotations>',
         r"found <Annotations> \(as of Aperio ImageScope, which is not read\)"),
        ('<?xml version="1.0" encoding="nonsense"?><a/>', "not XML"),
        ('<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "' + "b" * 999 + '">'
         + "".join(f'<!ENTITY c{i} "{"&b;" * 99 if not i else f"&c{i - 1};" * 99}">' for i in range(9))
         + "]><a>&c8;</a>", "not XML"),  # a billion laughs
    ],
)  # fmt: skip
def test_what_is_no_xml_of_asap_is_said_in_a_line(tmp_path, text, said):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(UserError, match=said) as error:
        read_asap(tmp_path / "a.xml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("wrong", ["", "one", "nan", "inf"])
def test_a_coordinate_that_is_no_number_is_said_with_its_annotation(tmp_path, wrong):
    with pytest.raises(UserError, match=r"annotation 2 \(Annotation 0\): expected a coordinate with numbers .*; found"):
        read(tmp_path, annotation(), annotation(points=[(1, 2), (wrong, 3), (4, 5)]))


def test_groups_in_a_circle_are_said(tmp_path):
    with pytest.raises(UserError, match="the group 'a' is part of itself"):
        read(tmp_path, annotation(group="a"), groups=[("a", "b"), ("b", "a")])
