"""The words of a figure and where they stand, for tests that they are inside of it and do not overlap."""

from matplotlib.figure import Figure


def boxes_of(figure: Figure) -> list[tuple[str, object]]:
    """Titles, labels and ticks of its axes, its legends and sentences: (text, box in pixels)."""
    figure.draw_without_rendering()
    boxes = []
    for axis in figure.axes:
        if axis.get_visible():
            texts = [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label]
            for along in (axis.xaxis, axis.yaxis):
                low, high = sorted(along.get_view_interval())  # what lies beyond is not drawn
                texts += [t.label1 for t in along.get_major_ticks() if low <= t.get_loc() <= high]
            boxes += [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text() and t.get_visible()]
            if axis.get_legend():
                boxes.append(("legend of a panel", axis.get_legend().get_window_extent()))
    boxes += [("legend", legend.get_window_extent()) for legend in figure.legends]
    return boxes + [(t.get_text(), t.get_window_extent()) for t in figure.texts if t.get_text()]


def misplaced(figure: Figure) -> list[tuple[str, str]]:
    """Words that touch others, or leave the figure."""
    boxes = boxes_of(figure)
    found = [(name, "leaves the figure") for name, box in boxes if min(box.x0, box.y0) < -2
             or box.x1 > figure.bbox.x1 + 2 or box.y1 > figure.bbox.y1 + 2]  # fmt: skip
    for i, (name, box) in enumerate(boxes):
        for other, second in boxes[i + 1 :]:
            wide = min(box.x1, second.x1) - max(box.x0, second.x0)
            high = min(box.y1, second.y1) - max(box.y0, second.y0)
            if min(wide, high) > 1.0:
                found.append((name, other))
    return found


def words_of(figure: Figure) -> str:
    """Its note and the sentences in its panels, as one line."""
    found = [figure.get_supxlabel(), *(text.get_text() for axis in figure.axes for text in axis.texts)]
    return " ".join(" ".join(found).split())
