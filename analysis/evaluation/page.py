"""An evaluation as one HTML file, in the dress of the report of a study: it needs no network and no other file."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator

from analysis.evaluation import figures
from analysis.evaluation.evaluation import BOOTSTRAP, DELONG, Evaluation, Key
from analysis.evaluation.metrics import (
    BAG,
    HALF,
    INSTANCE,
    LABELS,
    LEVELS,
    MODEL_THRESHOLD,
    RANKING,
    SCALED,
    TRAINED,
)
from analysis.evaluation.text_table import (
    MAIN,
    Notes,
    cells_text,
    counts_text,
    few_sentences,
    mean_sd,
    number,
    p_text,
    value_text,
)
from analysis.report import html_elements as html
from analysis.report.figure_section import embedded
from analysis.report.html_elements import Section
from analysis.statistics.cluster_bootstrap import LEAST_CLUSTERS
from analysis.statistics.paired_tests import SIGNIFICANCE_LEVEL
from d2l_study.errors import counted
from d2l_study.inference.evaluated_scores import EvaluationFacts, ModelScores


def make_page(found: Evaluation, facts: EvaluationFacts) -> str:
    """The page as one HTML document."""
    notes = Notes()
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    parts = [
        Section("Summary", _summary(found, facts)),
        Section("Metrics", [piece for level in LEVELS for piece in _metrics(found, level, notes)]),
        Section("Comparison", _comparison(found, notes)),
        Section("Members", [piece for name in found.ensembles for piece in _members(found, name)]),
        Section("Figures", list(_figures(found))),
        Section("Models", [piece for model in found.leads for piece in _model(found, model)]),
        Section("Data", _data(facts)),
        Section("How it was computed", [html.paragraph(text) for text in _methods(found)]),
        Section("Provenance", _provenance(facts)),
    ]
    parts[1].pieces += [html.bullet_list(notes.sentences(), "note")] if notes.found else []
    return html.document(
        f"Evaluation of {facts.title}", counts_text(found, BAG),
        f"Made {now}; nothing was trained, and nothing was set by these data.", parts,
    )  # fmt: skip


def _summary(found: Evaluation, facts: EvaluationFacts) -> list[str]:
    of, instances = found.levels[BAG], found.levels[INSTANCE]
    shown = [(f"{of.units:,}", "bags", False), (f"{of.positives:,}", "positive", False),
             (f"{of.patients:,}", "patients", False)]  # fmt: skip
    if instances.units:
        shown.append((f"{instances.units:,}", "instances of known label", False))
    pieces = [html.large_numbers(shown), html.bullet_list([*_findings(found)])]
    if few := few_sentences(found):
        pieces.append(html.paragraph(" ".join(few), "note"))
    return [*pieces, *(html.paragraph(f"Bags and training: {text}.") for text in facts.shared)]


def _findings(found: Evaluation) -> Iterator[str]:
    for model in found.leads:
        auc = found.value(model.name, (BAG, "auc", RANKING))
        if math.isnan(auc.value):
            yield f"{model.name}: no AUC of bags, since {auc.reason}."
        else:
            yield f"{model.name}: AUC of bags {value_text(auc)}."
        sensitivity, specificity = (found.value(model.name, (BAG, name, MODEL_THRESHOLD))
                                    for name in ("sensitivity", "specificity"))  # fmt: skip
        if not math.isnan(sensitivity.value) and not math.isnan(specificity.value):
            yield (f"{model.name}, at its threshold from training: sensitivity {value_text(sensitivity)}, specificity "
                   f"{value_text(specificity)}.")  # fmt: skip
        slope = found.value(model.name, (BAG, "calibration_slope", TRAINED))
        if not math.isnan(slope.value):
            yield f"{model.name}: calibration slope {value_text(slope)} (1 where scores are probabilities)."
        instance = found.value(model.name, (INSTANCE, "auc", RANKING))
        if not math.isnan(instance.value):
            yield f"{model.name}: AUC of instances {value_text(instance)}."
    for one in found.differences:
        if one.key == (BAG, "auc", RANKING) and not math.isnan(one.p):
            told = "differ" if one.p_holm < SIGNIFICANCE_LEVEL else "cannot be told apart here"
            yield (f"By the AUC of bags the two {told}: {one.first} minus {one.second} {value_text(one, signed=True)}, "
                   f"p {p_text(one.p)} ({one.test}). It is the primary comparison; the others are corrected "
                   "together.")  # fmt: skip
    for name, ensemble in found.ensembles.items():
        mean, sd = mean_sd(found.members_of(name, (BAG, "auc", RANKING)))
        if not math.isnan(mean):
            yield (f"The {len(ensemble.members)} members of {name} alone have an AUC of bags of {number(mean)} ± "
                   f"{number(sd)} (mean ± sd).")  # fmt: skip


def _metrics(found: Evaluation, level: str, notes: Notes) -> list[str]:
    if level == INSTANCE and not found.levels[level].units:
        return [html.paragraph("No instance labels: there are no metrics of instances.", "note")]
    pieces = [f"<h3>{counts_text(found, level)}</h3>"]
    rows: list[list[str | html.Text | html.Number]] = []
    for key in (key for key in found.keys if key[0] == level):
        values = [found.value(model.name, key) for model in found.leads]
        for value in values:
            notes.add(key, value.reason)
        if key[2] == SCALED and all(math.isnan(one.value) for one in values):
            continue  # no temperature, as the note says
        rows.append([LABELS[key[1]], _where(key), *(html.Number(value_text(one), one.value) for one in values)])
    pieces.append(html.sortable_table(["metric", "at", *(model.name for model in found.leads)], rows, ids=[0, 1]))
    text = cells_text(level)
    return [*pieces, html.paragraph(f"{text[:1].upper()}{text[1:]}.", "note")]


def _where(key: Key) -> str:
    shown = {RANKING: "", MODEL_THRESHOLD: "the model's threshold", HALF: "score 0.5", TRAINED: "score as probability",
             SCALED: "scaled by temperature"}  # fmt: skip
    return shown[key[2]]


def _comparison(found: Evaluation, notes: Notes) -> list[str]:
    if not found.differences:
        return []
    first, second = (model.name for model in found.leads)
    rows: list[list[str | html.Text | html.Number]] = []
    for one in found.differences:
        level, name, _ = one.key
        if not found.levels[level].units:
            continue
        if not one.reason.startswith((f"{first}: ", f"{second}: ")):  # else it is said above
            notes.add(one.key, one.reason)
        rows.append([
            f"{LABELS[name]} of {level}s", _where(one.key), html.Number(value_text(one, signed=True), one.value),
            html.Number(p_text(one.p), one.p), html.Number(p_text(one.p_holm), one.p_holm),
            one.test.partition(" ")[0],
        ])  # fmt: skip
    text = (f"{first} minus {second} on the same bags, paired, with 95 % intervals; each at its own thresholds. The "
            "AUC of bags is the primary comparison; Holm's correction is for the "
            f"{counted(found.tests, 'other')}. A large p-value is a lack of evidence, not a sign that the two are "
            "equal.")  # fmt: skip
    heads = ["metric", "at", "difference", "p", "p (Holm)", "test"]
    return [html.sortable_table(heads, rows, ids=[0, 1]), html.paragraph(text, "note")]


def _members(found: Evaluation, name: str) -> list[str]:
    ensemble = found.ensembles[name]
    keys = [key for key in MAIN if not all(math.isnan(value) for value in found.members_of(name, key))]
    heads = ["model", *(f"{LABELS[key[1]]} of {key[0]}s" for key in keys)]

    def line(model: str) -> list[str | html.Text | html.Number]:
        values = [found.value(model, key) for key in keys]
        return [model, *(html.Number(value_text(value), value.value) for value in values)]

    spread: list[str | html.Text | html.Number] = ["mean ± sd of the members"]
    for key in keys:
        mean, sd = mean_sd(found.members_of(name, key))
        spread.append(html.Number(f"{number(mean)} ± {number(sd)}", mean))
    rows = [line(name), *(line(member.name) for member in ensemble.members), spread]
    text = ("The ensemble's probability is the mean of the members' probabilities; its thresholds are the means of "
            "theirs, as probabilities. Members are of one trial, trained on other folds or with another start; all "
            "their metrics are in metrics.csv.")  # fmt: skip
    return [f"<h3>{html.code(name).html}</h3>", html.sortable_table(heads, rows, ids=[0]), html.paragraph(text, "note")]


def _figures(found: Evaluation) -> Iterator[str]:
    roc = figures.draw_roc(found)
    if roc is not None:
        yield embedded(roc, "ROC curves on these data.")
    yield embedded(figures.draw_reliability(found), "Reliability: how far a bag's score can be read as a probability.")
    yield embedded(figures.draw_scores(found), "The scores of negative and positive bags.")


def _model(found: Evaluation, model: ModelScores) -> list[str]:
    ensemble = found.ensembles.get(model.name)
    pieces = [f"<h3>{html.code(model.name).html}</h3>", html.fact_table(model.facts.items())]
    for member in ensemble.members if ensemble else ():
        pieces.append(html.folded(member.name, html.fact_table(member.facts.items())))
    return pieces


def _data(facts: EvaluationFacts) -> list[str]:
    pieces = [html.fact_table(facts.data)]
    pieces += ["<h3>Notes</h3>" + html.bullet_list(facts.notes)] if facts.notes else []
    return [*pieces, "<h3>Bags that training has seen</h3>" + html.bullet_list(facts.shared)]


def _methods(found: Evaluation) -> Iterator[str]:
    of = found.levels[BAG]
    units = f"{of.patients:,} patients" if of.patients != of.units else f"{of.units:,} bags, each a patient of its own"
    yield (f"Intervals are 95 % percentile intervals of a bootstrap over patients ({units}; "
           f"{found.resamples[BAG]:,} resamples of bags, {found.resamples[INSTANCE]:,} of instances): a patient is "
           "drawn with all bags and instances. Resamples in which a metric is not defined are left out (metrics.csv "
           f"counts the others). Below {LEAST_CLUSTERS} patients there is no bootstrap: simulated, its test rejects a "
           "true null at 0.05 in 49 % of the studies of 2 patients, and 10 % of 7. Intervals say how much a "
           "number would move with other patients of the same kind, the model being as it is; they say nothing of "
           "other hospitals or scanners.")  # fmt: skip
    if of.single:
        yield (f"The AUC of bags has {DELONG}'s interval, and its difference {DELONG}'s test (Biometrics 1988), since "
               "each patient has one bag.")  # fmt: skip
    else:
        yield (f"The AUC of bags has a {BOOTSTRAP} too, since some patients have several bags, which {DELONG}'s method "
               "would take for independent.")  # fmt: skip
    yield ("Thresholds and temperature are those of training, set on its validation bags: nothing was tuned on these "
           "data. The calibration error has 10 bins of equal width, of the probability of the positive class. It has "
           "no interval and no test: in each bin it takes the absolute value of the mean error, and so adds the spread "
           "of the resamples to that of the data. Slope "
           "and intercept are those of a logistic recalibration (Cox 1958), σ(intercept + slope · logit): 1 and 0 of "
           "calibrated scores; where the scores separate the classes they have no finite estimate. The temperature "
           "changes the slope and leaves the intercept as it is.")  # fmt: skip
    if found.levels[INSTANCE].units:
        yield ("Metrics of instances are over those whose label is known. Within bags: the mean over bags that hold "
               "both classes (of Dice: a positive), which gains nothing from telling bags apart. FROC is that of "
               "CAMELYON16, for tiles of grids.")  # fmt: skip


def _provenance(facts: EvaluationFacts) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return [html.fact_table([("command", html.code(facts.command) if facts.command else ""), ("versions", versions)])]
