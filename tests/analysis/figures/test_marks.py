"""Curves differ in more than colour, and tell teachers, students and references apart."""

import pytest

from analysis.cells.arrange import arrange
from analysis.figures import style
from analysis.figures.marks import COLOURS, LINES, REFERENCE_COLOURS, family_marks, marks_of, stage_marks
from analysis.figures.metric_curves import draw_metric_curves


def test_looks_differ_without_colour():
    for families in ([f"m{i}" for i in range(9)], ["none", "a", "a", "b", "b", "c", "c", "d", "d"]):
        looks = family_marks(families)
        assert len({(m.marker, str(m.line)) for m in looks}) == len(families)
    assert len({m.colour for m in family_marks([f"m{i}" for i in range(9)])}) == 9
    shared = family_marks(["none", "a", "a"])
    assert shared[1].colour == shared[2].colour != shared[0].colour


def test_curves_tell_teacher_student_and_reference_apart(distilled):
    (legend,) = draw_metric_curves(distilled).legends
    assert len(legend.get_lines()) == 2 + 8 + 4
    layout = arrange(distilled)
    looks = {row.text: mark for row, mark in marks_of(layout).items()}
    assert len({(mark.colour, mark.marker, str(mark.line)) for mark in looks.values()}) == len(looks)
    assert (looks["oracle †"].colour, looks["oracle †"].line) == (style.GREY, LINES[1])
    assert {looks[f"attention of {t}"].colour for t in ("none", "vat")} == {REFERENCE_COLOURS[1]}
    drawn = legend.get_lines()[-1]
    assert (drawn.get_color(), drawn.get_linestyle()) == (style.GREY, "--")
    names = [text.get_text() for text in draw_metric_curves(distilled, "bag_auc").legends[0].get_texts()]
    assert not any(name.startswith("attention") for name in names)


@pytest.mark.parametrize("students", [1, 4, 7])
def test_looks_of_students_differ_without_colour(students):
    teachers = ["none", "vat", "dropout"]
    curves = [("teacher", t, "") for t in teachers]
    curves += [("student", t, f"s{i}") for t in teachers for i in range(students)]
    curves += [("bag_label", "bag_label", ""), *(("attention", t, "") for t in teachers), ("oracle", "oracle", "")]
    looks = stage_marks(curves)
    assert len({(look.marker, str(look.line)) for look in looks}) == len(curves)
    own = dict(zip(curves, looks, strict=True))
    same = "colour" if students <= 4 else "line"
    for t in teachers:
        assert len({str(getattr(own[c], same)) for c in curves if c[1] == t and c[0] in ("teacher", "student")}) == 1
    assert {own[c].colour for c in curves[-5:]} == {*REFERENCE_COLOURS[:2], style.GREY}


def test_looks_of_many_references_differ_with_and_without_markers_and_in_grey():
    """ROC curves have no markers: there colour and line tell rows apart, in print the line and the marker do."""
    pairs = [(t, s) for t in ("none", "vat") for s in ("plain", "noisy")]
    curves = [("teacher", t, "") for t in ("none", "vat")] + [("student", *pair) for pair in pairs]
    curves += [(control, *pair) for control in ("matched", "no_soft_labels") for pair in pairs]
    curves += [("pooled", t, "") for t in ("none", "vat")] + [("oracle", "oracle", "")]
    looks = stage_marks(curves)
    assert len(curves) == 17
    assert len({(look.colour, str(look.line)) for look in looks}) == 17
    assert len({(look.marker, str(look.line)) for look in looks}) == 17
    assert not {look.colour for look in looks[6:]} & {*COLOURS[:-1]}
