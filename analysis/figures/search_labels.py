"""How the figures of a search name keys, metrics and panels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.figures import style
from analysis.rows.display_names import SETTING_SYMBOLS, Names
from analysis.rows.metrics import heading_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def key_label(key: str, names: Names) -> str:
    """`teacher.lambda_adv` as `λ_adv`, or by its name for print."""
    name = key.split(".")[-1]
    return names.texts.get(key) or names.texts.get(name) or SETTING_SYMBOLS.get(name, name.replace("_", " "))


def metric_heading(metric: str, names: Names) -> str:
    """`bag AUC (validation)`, or by its name for print."""
    return names.texts.get(metric) or heading_of(metric)


def panel_title(title: str, figure: Figure, across: int = 1) -> str:
    """A title in lines that fit a panel of so many beside each other, less the room of its axis."""
    return style.title_lines(title, figure.get_figwidth() / style.current_size().scale / across - 0.45)
