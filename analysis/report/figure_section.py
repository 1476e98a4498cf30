"""The figures of a report: those that fit its study, and score maps of tissue where runs hold them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from analysis.cells.model_selection import ranked_by_validation
from analysis.cells.partitions import partitions_of, unit_noun
from analysis.figures import style
from analysis.report import html_elements as html
from analysis.rows.display_names import Names
from d2l_study.errors import DamagedError, UserError

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from d2l_study.study.ledger.study_folder import StudyFolder

LARGEST_SVG = 600_000
"""Bytes; a figure of more lines than that is a PNG."""
PIXELS_PER_INCH = 96
"""Of the screen; the PNG has more."""
MAP_WIDTH = 1200
"""Pixels of a picture of score maps."""


def study_figures(rows: pandas.DataFrame, shown: pandas.DataFrame, folder: StudyFolder | None) -> list[str]:
    """The figures that fit a study as HTML. rows: all of it; shown: those that tables show."""
    pieces = []
    for name, make, caption in _planned_figures(rows, shown, folder):
        try:
            figure = make()
        except DamagedError as error:
            pieces.append(html.paragraph(f"The figure {name} could not be drawn: {error}", "note"))
            continue
        except UserError:
            continue  # a study that lacks what a figure needs is told so by `figure`; here it is left out
        except Exception as error:  # one figure less is better than no report
            pieces.append(
                html.paragraph(f"The figure {name} could not be drawn: {type(error).__name__}: {error}", "note")
            )
            continue
        pieces.append(embedded(figure, caption))
    return pieces + reliability(shown)


def reliability(shown: pandas.DataFrame) -> list[str]:
    """Figure and table of the reliability of bag and instance scores, where there are stored predictions."""
    from analysis.figures.reliability import Reliability
    from analysis.tables.html import html_fragment

    pieces = []
    for level in ("bag", "instance"):
        try:
            found = Reliability.of(shown, level)
            text = f"Reliability of {level} scores: how far a score can be read as a probability."
            pieces += [embedded(found.draw(), text), html_fragment(found.sheet())]
        except DamagedError as error:
            pieces.append(html.paragraph(f"The reliability of {level} scores could not be shown: {error}", "note"))
        except UserError:
            continue
        except Exception as error:
            text = f"The reliability of {level} scores could not be shown: {type(error).__name__}: {error}"
            pieces.append(html.paragraph(text, "note"))
    return pieces


def _planned_figures(
    rows: pandas.DataFrame, shown: pandas.DataFrame, folder: StudyFolder | None
) -> Iterator[tuple[str, Callable[[], Figure], str]]:
    from analysis.figures import heatmap, learning_curves, metric_curves, paired, roc

    units = unit_noun(partition.design for partition in partitions_of(shown).values())
    yield (
        "curves",
        lambda: metric_curves.draw_metric_curves(shown),
        f"Mean over {units}; with its 95 % interval where curves are few.",
    )
    if (shown["stage"] == "student").any():
        yield (
            "pairs",
            lambda: paired.draw_pairs(shown),
            f"Each student minus its controls and its own teacher; a dot for each of the {units}.",
        )
    yield (
        "heatmap",
        lambda: heatmap.draw_heatmap(rows),
        f"Mean over {units}, over the two keys that vary most visibly.",
    )
    if folder is None:
        return
    for level in ("bag", "instance"):
        for kind, name in (("roc", "ROC"), ("pr", "Precision-recall")):
            text = f"{name} curves of the test {level}s, from the stored predictions."
            yield f"{kind} of {level}s", partial(roc.draw_roc, shown, kind, level), text
    yield (
        "learning",
        lambda: learning_curves.draw_learning(shown),
        "Learning curves, from the stored curves of the runs.",
    )
    document = _search(folder)
    if document is not None:
        from analysis.figures import search

        for kind, caption in (
            ("best", "The search: value of each trial on validation, and the best so far."),
            ("importances", "Share of each key in the variation of the validation value (PED-ANOVA)."),
            ("parallel", "Each trial of the search as a line over its keys, the darker the better on validation."),
        ):
            yield kind, partial(search.draw_search_of, folder, kind, names=Names.of(rows)), caption


def embedded(figure: Figure, caption: str) -> str:
    import matplotlib as mpl

    width = figure.get_figwidth() * PIXELS_PER_INCH
    with mpl.rc_context(style.RC):
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
        data, kind = out.getvalue(), "svg+xml"
        if len(data) > LARGEST_SVG:
            out = io.BytesIO()
            figure.savefig(out, format="png", dpi=200)
            data, kind = out.getvalue(), "png"
    return html.figure(data, kind, width, caption)


def _search(folder: StudyFolder) -> Any:
    from d2l_study.study.ledger.search_document import read_document

    return read_document(folder)


def is_oracle_search(folder: StudyFolder) -> bool:
    """Whether a study is a search that looked at true instance labels."""
    document = _search(folder)
    return bool(document is not None and document["definition"].get("oracle"))


def score_maps(rows: pandas.DataFrame, folder: StudyFolder | None) -> list[str]:
    """Score maps over the tissue of the best teacher, student and class map of each kind on validation, where their
    runs hold maps and the study allows its images to be shown."""
    if folder is None:
        return []
    from d2l_study.study.ledger.run_files import SCORE_MAP_REPLICATE
    from d2l_study.study.mlflow import map_pictures
    from d2l_study.study.space.keys import WITH_SCORE_MAPS

    order = ranked_by_validation(rows)
    order = order[order["stage"].isin(WITH_SCORE_MAPS)].sort_values("validation", ascending=False)
    pieces: list[str] = []
    best = {one["stage"]: one for one in reversed(order.to_dict("records"))}
    for one in (best[stage] for stage in WITH_SCORE_MAPS if stage in best):
        config = str(one["config_id"])
        try:
            data = folder.ledger.read_config(config).get("sections", {}).get("data", {})
            if not map_pictures.images_allowed(folder.resolved().get("space", {}), data):
                return []
            mine = rows[(rows["config_id"] == config) & rows["teacher_id"].notna()]
            teacher = str(mine["teacher_id"].iloc[0]).split(",")[0] if len(mine) else None
            made = map_pictures.map_pictures(folder, config, teacher, SCORE_MAP_REPLICATE)
            for draw in made.values():
                pieces.append(html.figure(_small(draw()), "jpeg", MAP_WIDTH / 1.4, _caption(one, Names.of(rows))))
        except Exception as error:  # the images may be elsewhere, or the maps dropped
            text = f"The score maps of trial {one['trial_id']} could not be drawn: {type(error).__name__}: {error}"
            pieces.append(html.paragraph(text, "note"))
    return pieces


def _caption(one: dict[str, Any], names: Names) -> str:
    return (
        f"{names.arm(str(one['method']))} ({one['stage']}, trial {one['trial_id']}), the best {one['stage']} on "
        "validation: scores over a test image, with the true instances. No result chose the image."
    )


def _small(data: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as stored:
        image = stored.convert("RGB")
        if image.width > MAP_WIDTH:
            image = image.resize((MAP_WIDTH, round(image.height * MAP_WIDTH / image.width)))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=85)
    return out.getvalue()
