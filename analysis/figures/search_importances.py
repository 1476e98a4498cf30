"""Importance of each key of a search: its share in the variation of the value (PED-ANOVA: Watanabe et al. 2023,
"PED-ANOVA: Efficiently quantifying hyperparameter importance in arbitrary subspaces")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analysis.cells.search_results import complete_trials, trials_by_search
from analysis.figures import style
from analysis.figures.marks import family_marks
from analysis.figures.search_labels import key_label, metric_heading, panel_title
from analysis.rows.display_names import PLAIN, Names
from d2l_study.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST_FOR_IMPORTANCES = 8
"""Complete trials below which importances would say nothing."""


def importances(document: Mapping[str, Any], names: Names = PLAIN) -> list[tuple[str, int, dict[str, float]]]:
    """(search, complete trials, key -> share of the variation of the first metric, in all 1), for the searches of
    which there are enough complete trials and more than one key."""
    import warnings

    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    goals, found = document["definition"]["goals"], []
    for (name, trials), search in zip(
        trials_by_search(document, names.arm), document["definition"]["searches"], strict=True
    ):
        done = complete_trials(trials)
        if len(done) < LEAST_FOR_IMPORTANCES or len(search["distributions"]) < 2:
            continue
        kinds: dict[str, Any] = {}
        for key, d in search["distributions"].items():
            if "choices" in d:
                kinds[key] = CategoricalDistribution(d["choices"])
            elif all(isinstance(trial["params"][key], int) for trial in done):
                kinds[key] = IntDistribution(int(d["low"]), int(d["high"]), log=d["log"])
            else:
                kinds[key] = FloatDistribution(d["low"], d["high"], log=d["log"])
        study = optuna.create_study(direction="maximize" if goals[0] == "max" else "minimize")
        for trial in done:
            study.add_trial(
                optuna.trial.create_trial(params=trial["params"], distributions=kinds, value=trial["values"][0])
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(study)
        found.append((name, len(done), {key: float(value) for key, value in shares.items()}))
    return found


def draw_importances(document: Mapping[str, Any], names: Names) -> Figure:
    """Bars for each search. `UserError` where none has enough trials and keys."""
    found = importances(document, names)
    if not found:
        raise UserError(
            f"--kind importances: no search has two keys or more and {LEAST_FOR_IMPORTANCES} complete trials"
        )
    heights = [len(shares) for _, _, shares in found]
    figure = style.new_figure(0.3 * sum(heights) + 0.75 * len(found) + 0.3)
    axes = figure.subplots(len(found), 1, squeeze=False, sharex=True, height_ratios=[h + 0.6 for h in heights])[:, 0]
    searches = [name for name, _ in trials_by_search(document, names.arm)]
    marks = dict(zip(searches, family_marks(searches), strict=True))
    for axis, (name, count, shares) in zip(axes, found, strict=True):
        keys = list(shares)[::-1]
        axis.barh(range(len(keys)), [shares[key] for key in keys], color=marks[name].colour, alpha=0.75, height=0.62)
        for position, key in enumerate(keys):
            axis.text(shares[key] + 0.012, position, f"{shares[key]:.0%}", va="center", fontsize="medium")
        axis.set_yticks(range(len(keys)), [key_label(key, names) for key in keys])
        axis.set(title=panel_title(f"{name}: {count} complete trials", figure), xlim=(0, 1.08))
        axis.grid(axis="y", visible=False)
    axes[-1].set_xlabel(f"importance for {metric_heading(document['definition']['metrics'][0], names)}")
    return figure
