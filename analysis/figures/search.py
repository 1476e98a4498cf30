"""Pictures of a search, from its document `search.json` (`study.search`), all by the validation metric:

    best          value of each trial and the best so far, against the number of trials; a panel for each search
    importances   share of each key in the variation of the value (PED-ANOVA: Watanabe et al. 2023, "PED-ANOVA")
    parallel      each trial as a line over its keys, the best ones coloured

Trials that failed or were ended early have no value: they are ticks at the lower edge, and in no curve.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from analysis.cells.machines import differing_rows
from analysis.cells.search_results import best_trial, by_search, count_text, pareto_front, tied_trials
from analysis.figures import style
from analysis.rows.display_names import PLAIN, Names
from analysis.rows.metrics import describe
from analysis.rows.results import labels_of, study_folder
from d2l_study.errors import UserError
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.search.search import COMPLETE, FAILED, PRUNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from d2l_study.study.ledger.study_folder import StudyFolder

LEAST_FOR_IMPORTANCES = 8
"""Complete trials below which importances would say nothing."""

SYMBOLS = {
    "epsilon": "ε", "lambda_adv": "λ_adv", "lambda_noise": "λ_noise", "lambda_ent": "λ_ent", "num_bags": "n",
    "mean_bag_size": "K", "learning_rate": "learning rate", "weight_decay": "weight decay",
}  # fmt: skip
UPRIGHT_FROM = 0.8
"""Inches for each axis of parallel coordinates, below which their names stand upright."""
ORACLE_NOTE = "† ORACLE: this search looked at true instance labels"


def draw_search(
    study: str, root: str, kind: str, size: str = "page", labels: Mapping[str, str] | None = None
) -> Figure:
    """The picture of a study's search; `UserError` if it has none, or none of this kind can be drawn. labels: names for
    print over those of its space."""
    folder = study_folder(study, root)
    return draw_folder(folder, kind, size, Names({**labels_of(folder), **(labels or {})}))


def draw_folder(folder: StudyFolder, kind: str, size: str = "page", names: Names = PLAIN) -> Figure:
    """The same of a study's folder."""
    document = read_document(folder)
    if document is None:
        raise UserError(f"--kind {kind}: study {folder.name!r} is no search (its space has no section search)")
    return draw(document, kind, folder.name, size, names, machines_note(folder))


def machines_note(folder: StudyFolder) -> str:
    """That the runs of a search differ in precision or device, for the note of a picture; empty where they do not."""
    return " ".join(differing_rows(folder.rows()))


_names: ContextVar[Names] = ContextVar("names", default=PLAIN)


def draw(document: Mapping[str, Any], kind: str, name: str, size: str = "page", names: Names = PLAIN,
         note: str = "") -> Figure:  # fmt: skip
    """A picture of kind best, importances or parallel, with a note above. `UserError` if no trial is complete."""
    if not any(trial["state"] == COMPLETE for trial in document["trials"]):
        raise UserError(f"--kind {kind}: study {name!r} has no complete trial yet")
    token = _names.set(names)
    try:
        with style.use(size):
            figure = {"best": _best, "importances": _importances, "parallel": _parallel}[kind](document)
            if note:  # below there are legends
                figure.suptitle(style.note_lines(figure, note), fontsize="small", color=style.GREY)
            if document["definition"].get("oracle"):
                figure.text(0.995, 0.005, ORACLE_NOTE, ha="right", va="bottom", fontsize="small", color="#A00000")
    finally:
        _names.reset(token)
    return figure


def picture(document: Mapping[str, Any], kind: str, name: str) -> bytes:
    """The same as a PNG; of a kind that cannot be drawn, a page that says why."""
    import matplotlib as mpl

    try:
        figure = draw(document, kind, name)
    except UserError as error:
        figure = _figure(1.2)
        figure.text(0.02, 0.5, str(error), va="center", wrap=True)
    out = io.BytesIO()
    with mpl.rc_context(style.RC):
        figure.savefig(out, format="png")
    return out.getvalue()


def _figure(height: float) -> Figure:
    """height: in inches on paper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot, whose state is not for threads

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    style.current().set(figure, height)
    return figure


# ---- best so far
def _best(document: Mapping[str, Any]) -> Figure:
    searches = by_search(document, _names.get().arm)
    metrics, goals = document["definition"]["metrics"], document["definition"]["goals"]
    if len(metrics) > 1:
        return _fronts(document)
    size = style.current()
    columns = size.columns(len(searches))
    rows = math.ceil(len(searches) / columns)
    figure = _figure(size.panel_height(size.panel_width(len(searches))) * rows + 0.45)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    axes = [axis for line in grid for axis in line]
    marks = style.marks([name for name, _ in searches])
    for axis, (name, trials), mark in zip(axes, searches, marks, strict=False):
        done = [trial for trial in trials if trial["state"] == COMPLETE]
        startup = min(int(document["definition"].get("startup", 0)), len(trials))
        if 0 < startup < len(trials):
            axis.axvspan(0.5, startup + 0.5, color="#F1F1F1", zorder=0, label="drawn at random")
        x, y = [t["trial"] + 1 for t in done], [t["values"][0] for t in done]
        axis.plot(x, y, linestyle="none", marker=mark.marker, color=mark.colour, alpha=0.45, label="a trial")
        if done:
            order = sorted(zip(x, y, strict=True))
            better = max if goals[0] == "max" else min
            steps, values = [order[0][0]], [order[0][1]]
            for at, value in order[1:]:
                steps.append(at)
                values.append(better(values[-1], value))
            axis.step(
                [*steps, len(trials)], [*values, values[-1]], where="post", color=mark.colour, label="best so far"
            )
            best = tied_trials(trials, goals)
            axis.plot([t["trial"] + 1 for t in best], [t["values"][0] for t in best], marker="o", markersize=9,
                      markerfacecolor="none", markeredgecolor=mark.colour, markeredgewidth=1.3, linestyle="none",
                      label="the best" if len(best) == 1 else "tie as the best")  # fmt: skip
        _ticks_of_lost(axis, trials)
        if not done:
            style.say(axis, f"no trial is complete: {count_text(trials)}")
        axis.set(
            title=_lines(f"{name}\n{count_text(trials)}", figure, columns),
            xlabel="trial",
            xlim=(0.5, max(len(trials), 2) + 0.5),
        )
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[len(searches) :]:
        axis.set_visible(False)
    for line in grid:
        line[0].set_ylabel(_heading(metrics[0]))
    if _ends(metrics[0]):
        style.end_at_one(axes[0].yaxis)
    named = {
        text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }  # over the points there is no free corner that one could count on
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=min(len(named), 2 if figure.get_figwidth() < 5 * size.scale else len(named)),
        columnspacing=1.2,
    )
    return figure


def _fronts(document: Mapping[str, Any]) -> Figure:
    """Several objectives: the first two of each trial, and the Pareto front of all of them."""
    searches = by_search(document, _names.get().arm)
    metrics, goals = document["definition"]["metrics"], document["definition"]["goals"]
    figure = _figure(style.PANEL_HEIGHT + 0.9)
    axis = figure.subplots()
    for (name, trials), mark in zip(searches, style.marks([name for name, _ in searches]), strict=True):
        done, front = [t for t in trials if t["state"] == COMPLETE], pareto_front(trials, goals)
        x, y = [t["values"][1] for t in done], [t["values"][0] for t in done]
        axis.plot(x, y, linestyle="none", marker=mark.marker, color=mark.colour, alpha=0.3)
        points = sorted((t["values"][1], t["values"][0]) for t in front)
        axis.plot([p[0] for p in points], [p[1] for p in points], linestyle=mark.line if len(metrics) == 2 else "none",
                  marker=mark.marker, markersize=6, color=mark.colour, markeredgecolor="white",
                  label=f"{name}: front of {len(front)} of {len(done)} trials")  # fmt: skip
    axis.set(xlabel=_heading(metrics[1]), ylabel=_heading(metrics[0]))
    for along, metric in ((axis.yaxis, metrics[0]), (axis.xaxis, metrics[1])):
        if _ends(metric):
            style.end_at_one(along)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    if len(metrics) > 2:
        axis.set_title(f"the front is one of {len(metrics)} objectives: also {', '.join(map(_heading, metrics[2:]))}")
    return figure


def _ticks_of_lost(axis: Axes, trials: Sequence[Mapping[str, Any]]) -> None:
    """Trials without a value, at the lower edge: × failed, | ended early."""
    for state, marker, label in ((FAILED, "x", "failed"), (PRUNED, "|", "ended early")):
        x = [trial["trial"] + 1 for trial in trials if trial["state"] == state]
        if x:
            axis.plot(x, [0.02] * len(x), transform=axis.get_xaxis_transform(), linestyle="none", marker=marker,
                      color=style.GREY, clip_on=False, label=label)  # fmt: skip


# ---- importances
def importances(document: Mapping[str, Any]) -> list[tuple[str, int, dict[str, float]]]:
    """(search, complete trials, key -> share of the variation of the first metric, in all 1), for the searches of
    which there are enough complete trials and more than one key."""
    import warnings

    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    goals, found = document["definition"]["goals"], []
    for (name, trials), search in zip(
        by_search(document, _names.get().arm), document["definition"]["searches"], strict=True
    ):
        done = [trial for trial in trials if trial["state"] == COMPLETE]
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


def _importances(document: Mapping[str, Any]) -> Figure:
    found = importances(document)
    if not found:
        raise UserError(
            f"--kind importances: no search has two keys or more and {LEAST_FOR_IMPORTANCES} complete trials"
        )
    heights = [len(shares) for _, _, shares in found]
    figure = _figure(0.3 * sum(heights) + 0.75 * len(found) + 0.3)
    axes = figure.subplots(len(found), 1, squeeze=False, sharex=True, height_ratios=[h + 0.6 for h in heights])[:, 0]
    names = [name for name, _ in by_search(document, _names.get().arm)]
    marks = dict(zip(names, style.marks(names), strict=True))
    for axis, (name, count, shares) in zip(axes, found, strict=True):
        keys = list(shares)[::-1]
        axis.barh(range(len(keys)), [shares[key] for key in keys], color=marks[name].colour, alpha=0.75, height=0.62)
        for place, key in enumerate(keys):
            axis.text(shares[key] + 0.012, place, f"{shares[key]:.0%}", va="center", fontsize="medium")
        axis.set_yticks(range(len(keys)), [_short(key) for key in keys])
        axis.set(title=_lines(f"{name}: {count} complete trials", figure), xlim=(0, 1.08))
        axis.grid(axis="y", visible=False)
    axes[-1].set_xlabel(f"importance for {_heading(document['definition']['metrics'][0])}")
    return figure


# ---- parallel coordinates
def _parallel(document: Mapping[str, Any]) -> Figure:
    import matplotlib as mpl

    searches = [
        (name, [t for t in trials if t["state"] == COMPLETE], search["distributions"])
        for (name, trials), search in zip(
            by_search(document, _names.get().arm), document["definition"]["searches"], strict=True
        )
    ]
    searches = [item for item in searches if item[1] and item[2]]
    if not searches:
        raise UserError("--kind parallel: no search has a key that varies and a complete trial")
    metrics, goals = document["definition"]["metrics"], document["definition"]["goals"]
    widest = max(len(ways) for _, _, ways in searches) + len(metrics)
    figure = _figure(2.8 * len(searches) + 0.2)
    crowded = style.current().width / widest < UPRIGHT_FROM
    axes = figure.subplots(len(searches), 1, squeeze=False)[:, 0]
    colours = mpl.colormaps["cividis"]  # for colour-blind readers, and even in grey
    for axis, (name, done, ways) in zip(axes, searches, strict=True):
        scales = [_Scale.of_key(key, way) for key, way in ways.items()]
        scales += [_Scale.of_metric(m, [t["values"][i] for t in done]) for i, m in enumerate(metrics)]
        first = [trial["values"][0] for trial in done]
        low, high = min(first), max(first)
        sign = 1 if goals[0] == "max" else -1
        for trial in sorted(done, key=lambda t: sign * t["values"][0]):  # the best ones on top
            share = 0.5 if high == low else (trial["values"][0] - low) / (high - low)
            share = share if sign > 0 else 1 - share
            points = [*(trial["params"][key] for key in ways), *trial["values"]]
            y = [scale.place(value) for scale, value in zip(scales, points, strict=True)]
            axis.plot(range(len(y)), y, color=colours(1 - share), alpha=0.35 + 0.6 * share, linewidth=0.8 + share)
        best = best_trial(done, goals)
        assert best is not None
        points = [*(best["params"][key] for key in ways), *best["values"]]
        y = [scale.place(value) for scale, value in zip(scales, points, strict=True)]
        axis.plot(range(len(y)), y, color=style.COLOURS[2], linewidth=2.2, marker="o")
        for x, scale in enumerate(scales):
            axis.axvline(x, color=style.GREY, linewidth=0.8, zorder=1)
            for value, text in scale.ticks:
                axis.annotate(
                    text, (x, scale.place(value)), xytext=(3, 0), textcoords="offset points", fontsize="small",
                    va="center", zorder=9, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
                )  # fmt: skip
        axis.set_xticks(range(len(scales)), [scale.name for scale in scales])
        if crowded:
            axis.tick_params(axis="x", labelrotation=90)
        axis.set(xlim=(-0.1, len(scales) - 1 + 0.45), ylim=(-0.06, 1.06), yticks=[])
        others = len(tied_trials(done, goals)) - 1
        which = f"{best['trial_id']}, with which {others} tie" if others else best["trial_id"]
        text = f"{name}: {len(done)} complete trials, the darker the better; with dots the best ({which})"
        axis.set_title(_lines(text, figure), loc="left")
        axis.grid(visible=False)
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.tick_params(length=0)
    return figure


class _Scale:
    """One upright axis: where a value lies on it, from 0 to 1, and its ticks (value, text)."""

    def __init__(self, name: str, low: float, high: float, log: bool, choices: Sequence[Any] = ()) -> None:
        self.name, self.low, self.high, self.log, self.choices = name, low, high, log, list(choices)

    @classmethod
    def of_key(cls, key: str, way: Mapping[str, Any]) -> _Scale:
        if "choices" in way:
            return cls(_short(key), 0, 1, False, way["choices"])
        return cls(_short(key), way["low"], way["high"], way["log"])

    @classmethod
    def of_metric(cls, metric: str, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        margin = (high - low) / 20 or 0.01
        low, high = low - margin, high + margin
        if _ends(metric):
            low, high = max(low, 0.0), min(high, 1.0)
        return cls(_heading(metric).replace(" (", "\n("), low, high, False)

    def place(self, value: Any) -> float:
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[Any, str]]:
        if self.choices:
            return [(value, str(value)) for value in self.choices]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(value, f"{value:.2g}" if self.log else f"{value:.3g}") for value in (self.low, middle, self.high)]


def _short(key: str) -> str:
    name = key.split(".")[-1]
    texts = _names.get().texts
    return texts.get(key) or texts.get(name) or SYMBOLS.get(name, name.replace("_", " "))


def _lines(title: str, figure: Figure, across: int = 1) -> str:
    """A title in lines that fit a panel of so many beside each other, less the room of its axis."""
    return style.title_lines(title, figure.get_figwidth() / style.current().scale / across - 0.45)


def _ends(metric: str) -> bool:
    """Whether it lies in [0, 1]."""
    described = describe(metric)
    return described is not None and described.unit_interval


def _heading(metric: str) -> str:
    described = describe(metric)
    return _names.get().texts.get(metric) or (described.heading if described else metric)
