"""The table for a terminal, the long table, and the page, of made scores."""

import io
import math

import numpy as np
import pandas as pd
import pytest
from scored_bags import few_resamples, make_bags, make_scores

from analysis.evaluation.evaluation import Ensemble, evaluate
from analysis.evaluation.long_form import COLUMNS, csv_text
from analysis.evaluation.page import make_page
from analysis.evaluation.text_table import text_lines
from d2l_study.inference.evaluated_scores import EvaluationFacts, ensemble_of

FACTS = EvaluationFacts("<A> on b.csv", [("data", "b&c.csv")], ["a note"], ["1 of 9 bags is of the training"],
                        "d2l evaluate --run A", {"torch": "2"})  # fmt: skip
LONG = "a model's folder with a name that goes on and on and on and on"


def _ensemble(bags, seed, name, count=3):
    members = tuple(make_scores(bags, seed + i, f"{name} r{i:03d}") for i in range(count))
    return Ensemble(ensemble_of(members, name, {}), members)


@pytest.fixture(scope="module", params=["one", "two", "ensembles", "no truth", "one class", "one patient"])
def found(request):
    with few_resamples():
        return _evaluated(request)


def _evaluated(request):
    bags = make_bags(1, 16, 2, grid=True)
    if request.param == "one":
        return evaluate(bags, [make_scores(bags, name=LONG)])
    if request.param == "two":
        return evaluate(bags, [make_scores(bags, name=LONG), make_scores(bags, 1, "B", 30.0)])
    if request.param == "ensembles":
        return evaluate(bags, [_ensemble(bags, 0, LONG), _ensemble(bags, 5, "B")])
    if request.param == "no truth":
        bags = make_bags(1, 16, known=0.0)
    if request.param == "one class":
        bags = make_bags(1, 16, label=0)
    if request.param == "one patient":
        bags = make_bags(1, 1, 6)
    return evaluate(bags, [make_scores(bags), make_scores(bags, 1, "B", bag_threshold=None, temperature=None)])


def test_tables_fit_a_terminal_and_say_why_a_value_is_missing(found):
    lines = list(text_lines(found))
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "nan" not in text
    assert "value [95 % interval], from 0 to 1; log loss in nats" in text
    assert f"{found.levels['bag'].units} bags ({found.levels['bag'].positives} positive)" in text
    area = found.value(found.leads[0].name, ("bag", "auc", ""))
    assert (f"{area.value:.3f}" if not math.isnan(area.value) else area.reason) in text


def test_the_long_table_has_every_number_and_its_reason(found):
    frame = pd.read_csv(io.StringIO(csv_text(found)))
    assert tuple(frame.columns) == COLUMNS
    values = frame[frame["kind"] == "value"]
    models = len(found.leads) + sum(len(one.members) for one in found.ensembles.values())
    assert len(values) == models * len(found.keys)
    assert (values["value"].notna() | values["reason"].notna()).all()
    for (model, key), one in list(found.values.items())[:30]:
        row = values[(values["model"] == model) & (values["level"] == key[0]) & (values["metric"] == key[1])
                     & (values["at"].fillna("").astype(str) == key[2])]  # fmt: skip
        assert row["value"].item() == pytest.approx(one.value, nan_ok=True, rel=1e-12)
    assert (frame["kind"] == "difference").sum() == len(found.differences)
    members = frame[frame["kind"] == "members"]
    assert len(members) == len(found.ensembles) * len(found.keys)
    for name in found.ensembles:
        row = members[(members["model"] == name) & (members["level"] == "bag") & (members["metric"] == "auc")]
        each = found.members_of(name, ("bag", "auc", ""))
        assert (row["value"].item(), row["sd"].item()) == pytest.approx((np.mean(each), np.std(each, ddof=1)))


def test_the_page_is_whole_and_escaped(found):
    page = make_page(found, FACTS)
    assert "<title>Evaluation of &lt;A&gt; on b.csv</title>" in page and "b&amp;c.csv" in page
    assert "<A>" not in page and ">nan" not in page and "http" not in page.split("</style>")[1].split("<img")[0]
    for heading in ("Summary", "Metrics", "Figures", "Data", "How it was computed", "Provenance"):
        assert f">{heading}</h2>" in page
    assert (">Comparison</h2>" in page) is bool(found.differences)
    assert (">Members</h2>" in page) is bool(found.ensembles)
    assert page.count("<figure>") >= 2
    assert "1 of 9 bags is of the training" in page


@pytest.mark.parametrize(("patients", "said"), [
    (5, "5 patients: below 8 there is no bootstrap, and so hardly an interval or a test."),
    (12, "12 patients: below about 20 intervals of a bootstrap are too narrow, and its p-values too small."),
    (40, ""),
])  # fmt: skip
def test_few_patients_are_told_beside_the_tables_and_on_the_page(patients, said):
    bags = make_bags(2, patients, 9, known=1.0)
    with few_resamples():
        found = evaluate(bags, [make_scores(bags)])
    terminal = " ".join(" ".join(text_lines(found)).split())
    page = make_page(found, FACTS)
    few = "intervals and p-values of so few are rough."
    rough = min(found.levels["bag"].positives, found.levels["bag"].units - found.levels["bag"].positives) < 20
    assert (few in terminal) is (few in page) is rough
    for text in (terminal, page):
        assert ("in all): no interval: of 5 patients" in text) is (patients == 5)  # of nearly all metrics
        assert said in text and ("below 8 there" in text, "below about 20" in text) == (patients == 5, patients == 12)
    assert "resampled bags look less calibrated than they are" in terminal
    assert "It has no interval and no test: in each bin" in page
