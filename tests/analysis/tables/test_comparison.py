"""Comparisons: which cell is paired with which, what the tests are given, and what the table says of them."""

import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest
from make_folds import make_folds
from make_rows import make_rows
from make_study import make_distillation, make_study
from scipy import stats

import analysis
from analysis.cells import prediction_tests
from analysis.cli import main
from analysis.rows.stored_predictions import run_predictions
from analysis.statistics.delong import delong_test
from analysis.statistics.paired_tests import corrected_t, holm
from analysis.tables.comparison import compare
from analysis.tables.sheet import anchor_text
from analysis.tables.study_table import render, table
from d2l_study.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), missing=((2, 1),), with_predictions=True)
    make_study(root, "twelve", num_bags=(50, 100), bag_sizes=(10,), replicates=12, seed=3)
    make_distillation(root, num_bags=(50,))
    make_folds(root)
    return root


def test_pairs_tests_and_holm_are_those_of_scipy_by_hand(root):
    rows = analysis.load("made", root)
    found = compare(rows).frame().set_index(["num_bags", "test"])
    p = {"t": [], "Wilcoxon": []}
    for n in (50, 100):
        own = rows[rows["num_bags"] == n].pivot(index="replicate", columns="method", values="bag_auc").dropna()
        d = (own["vat"] - own["none"]).to_numpy()
        p["t"].append(stats.ttest_rel(own["vat"], own["none"]).pvalue)
        p["Wilcoxon"].append(stats.wilcoxon(d).pvalue)
        assert found.loc[(n, "t"), "difference"] == pytest.approx(d.mean())
        assert found.loc[(n, "t"), "count"] == len(d) == (4 if n == 50 else 5)
        assert found.loc[(n, "Wilcoxon"), "smallest_p"] == 2.0 ** (1 - len(d))
        assert found.loc[(n, "t"), "baseline_mean"] == pytest.approx(own["none"].mean())
    for test, wanted in p.items():
        assert [found.loc[(n, test), "p"] for n in (50, 100)] == pytest.approx(wanted)
        assert [found.loc[(n, test), "p_holm"] for n in (50, 100)] == pytest.approx(holm(wanted))


def test_the_table_says_what_its_tests_cannot(root):
    text = " ".join(compare(analysis.load("made", root)).text().split())
    assert "0.125 at 4, 0.0625 at 5 pairs, after Holm over this table 0.125" in text
    assert "can reject nothing here at 0.05" in text
    assert "can reject nothing" not in compare(analysis.load("twelve", root)).text()


def test_every_comparison_of_a_study_has_a_label_of_its_own(root):
    rows = analysis.load("distilled", root)
    made = [compare(rows, controls=True), compare(rows, controls=True, metric="bag_auc"), compare(rows),
            compare(rows, {"method": "vat"}), compare(rows, metric="bag_auc"),
            compare(rows, metric=["bag_auc", "instance_auc"])]  # fmt: skip
    for pattern, format in ((r"\\label\{(.*?)\}", "latex"), (r'<section class="d2l-sheet" id="(.*?)"', "html")):
        labels = [label for one in made for label in re.findall(pattern, one.text(format))]
        assert len({*labels}) == len(labels) == len(made)
        assert all(re.fullmatch(r"[\w:-]+", label, re.ASCII) for label in labels)


def test_studies_named_in_another_script_have_labels_of_their_own():
    assert len({anchor_text(name) for name in ("研究-bag_auc", "学习-bag_auc", "etüd-bag_auc", "etud-bag_auc")}) == 4
    assert anchor_text("made-bag_auc") == "made-bag-auc"


def test_of_tied_pairs_the_smallest_p_can_be_reached(root):
    """14 equal steps of three sizes: Wilcoxon's test is an approximation then."""
    rows = analysis.load("twelve", root)
    pair = rows[(rows["num_bags"] == 50) & (rows["replicate"] == 0)]
    many = pd.concat([pair.assign(replicate=r, bag_auc=0.8 + 0.01 * (r % 3 + 1) * (pair["method"] == "vat"))
                      for r in range(14)], ignore_index=True)  # fmt: skip
    many.attrs = rows.attrs
    made = compare(many)
    line = made.frame().set_index("test").loc["Wilcoxon"]
    assert line["p"] == line["smallest_p"] > 2**-12
    assert f"smallest two-sided p is {line['p']:.3g} at 14 pairs" in " ".join(made.text().split())


def test_any_row_can_be_the_baseline_and_the_oracle_is_left_out(root):
    rows = analysis.load("distilled", root)
    found = compare(rows, {"method": "vat → noisy"}).frame()
    assert set(found["baseline"]) == {"vat → noisy"}
    assert "oracle" not in set(found["method"])
    assert "attention of vat" in set(found["method"])
    turned = compare(rows, {"method": "none → noisy"}).frame().set_index(["method", "test"])
    there = found.set_index(["method", "test"])
    assert turned.loc[("vat → noisy", "t"), "difference"] == -there.loc[("none → noisy", "t"), "difference"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": {"method": "nome"}}, r"--baseline method=nome: no row has it; did you mean 'none'\?"),
        (
            {"baseline": {"metod": "none"}},
            r"no such key; did you mean 'method'\? \(keys: method, stage; rows: none, vat",
        ),
        ({"baseline": {"stage": "teacher"}}, "all rows answer to it"),
        ({"replicates": [1]}, "--replicate 1: is of --test delong and clusters"),
        ({"replicates": [0, 99], "test": "delong"}, r"--replicate 99: not in this study \(there: 0, 1, "),
        ({"test_train_ratio": 0.5}, "--test-train-ratio 0.5: is of folds"),
        ({"test": "delon"}, "did you mean 'delong'"),
        ({"test": "delong", "metric": "instance_auc"}, "about bag_auc"),
        ({"test": "clusters"}, "does not say which image"),
    ],
)
def test_what_cannot_be_compared(root, arguments, message):
    with pytest.raises(UserError, match=message):
        compare(analysis.load("made", root), **arguments)


def test_a_baseline_that_nobody_typed_is_said_to_be_one_and_controls_are_pointed_to(root):
    rows = analysis.load("made", root)
    one = rows[(rows["method"] == "none") & (rows["stage"] == "teacher")]
    one.attrs = rows.attrs
    taken = "--baseline method=none: all rows answer to it.*; it was taken since no --baseline was given"
    with pytest.raises(UserError, match=f"{taken}$"):
        compare(one)
    with pytest.raises(UserError) as typed:
        compare(one, {"method": "none"})
    assert "was taken" not in str(typed.value)
    rows = analysis.load("distilled", root)
    students = rows[~rows["method"].str.contains("vat")].copy()
    students.attrs = rows.attrs
    students["method"] = students["method"].str.replace("none", "plain")
    with pytest.raises(
        UserError, match=r"was given \(--controls compares students with their teachers and controls\)$"
    ):
        compare(students)


def test_an_arm_with_null_is_compared_with_the_plain_arm_with_null():
    rng = np.random.default_rng(0)
    rows = make_rows([({"method": m, "num_bags": 50, "instances_per_bag": k}, [*rng.random(6)])
                      for m in ("none", "vat") for k in (None, 100)],
                     varied=("instances_per_bag",), replicates=6)  # fmt: skip
    pairs = [(one.row.text, one.baseline.text) for one in compare(rows).found]
    assert pairs == [(f"vat (instances_per_bag={k})", f"none (instances_per_bag={k})") for k in ("100", "null")]
    assert "Not compared" not in table(rows).text() and len(table(rows).all_differences) == 2
    (one, *_) = compare(rows, {"method": "none", "instances_per_bag": "null"}).found
    assert one.baseline.text == "none (instances_per_bag=null)"
    with pytest.raises(UserError, match=r"no row has it \(there: 100, null\)"):
        compare(rows, {"method": "none", "instances_per_bag": "7"})
    fixed = rows[(rows["method"] == "none") | (rows["instances_per_bag"] == 100)]
    fixed.attrs = rows.attrs
    assert "several of its rows answer" in " ".join(table(fixed).text().split())  # vat says nothing of the key


def test_what_has_no_common_replicate_is_named_and_nothing_at_all_is_an_error(tmp_path):
    make_study(tmp_path, "half", num_bags=(50, 100), bag_sizes=(10,), failed=tuple((1, r) for r in range(5)))
    made = compare(analysis.load("half", tmp_path))
    assert [(one.column.value, one.difference.count) for one in made.found] == [(50, 5)]
    assert "No replicate is finished on both sides: vat, K = 10, n = 100." in " ".join(made.text().split())
    make_study(tmp_path, "none", num_bags=(50,), bag_sizes=(10,), seed=1, failed=tuple((0, r) for r in range(5)))
    with pytest.raises(UserError, match="--baseline method=none: no replicate is finished both there and in another"):
        compare(analysis.load("none", tmp_path))


def test_what_was_computed_otherwise_is_said_of_tables_and_of_pairs(root):
    rows = analysis.load("made", root)
    assert "differ in" not in table(rows).text() + compare(rows).text()
    moved = (rows["method"] == "vat") & (rows["num_bags"] == 50) & (rows["status"] == "done")
    rows.loc[moved, "precision"] = "bfloat16"
    rows.loc[rows["num_bags"] == 100, "device"] = "cuda:1"
    for format in ("markdown", "latex", "html"):
        text = " ".join(table(rows).text(format).split())
        assert "Runs differ in precision, which changes results (bfloat16: vat; float32: none, vat)." in text
        assert "Runs differ in device, which changes results (cpu: none, vat; cuda: none, vat)." in text
    text = " ".join(compare(rows).text().split())
    assert "In 4 of 9 pairs the two sides differ in precision (bfloat16, float32)" in text
    assert "differ in device" not in text  # both sides of a pair were computed on the same


def test_folds_and_independent_replicates_are_not_tested_in_one_table(root):
    with pytest.raises(UserError, match="made, folded: the replicates of some are folds"):
        compare(analysis.load(["made", "folded"], root))


def test_an_infinite_loss_is_shown_and_tested_by_ranks_alone(tmp_path):
    make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,))
    rows = analysis.load("made", tmp_path)
    (place,) = rows.index[(rows["method"] == "vat") & (rows["num_bags"] == 50) & (rows["replicate"] == 1)]
    rows.loc[place, "bag_nll"] = math.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare(rows, metric="bag_nll").frame().set_index(["num_bags", "test"])
        text = render(rows, "bag_nll")
    assert " inf (5)" in text and math.isinf(found.loc[(50, "t"), "difference"])
    assert math.isnan(found.loc[(50, "t"), "p"]) and found.loc[(50, "Wilcoxon"), "p"] > 0
    assert found.loc[(100, "t"), "p"] > 0


def test_delong_is_given_the_bags_of_one_replicate(root):
    found = compare(analysis.load("made", root), test="delong", replicates=[0, 1]).frame()
    assert sorted(zip(found["num_bags"], found["replicate"], strict=True)) == [(50, 0), (100, 0), (100, 1)]
    by_method = [analysis.load_predictions("made", root, split="test", level="bag", num_bags=100, replicate=1, method=m)
                 for m in ("vat", "none")]  # fmt: skip
    wanted = delong_test(by_method[0]["label"].to_numpy(int), *(p["logit"].to_numpy() for p in by_method))
    (line,) = found[(found["num_bags"] == 100) & (found["replicate"] == 1)].to_dict("records")
    assert (line["statistic"], line["p"]) == (pytest.approx(wanted.z), pytest.approx(wanted.p))
    assert (line["lower"], line["upper"]) == (pytest.approx(wanted.lower), pytest.approx(wanted.upper))
    assert line["units"] == "100 + 100 bags"
    rows = analysis.load("made", root)
    ids = rows[rows["num_bags"] == 100].groupby("method")["config_id"].first()
    assert (line["trial_id"], line["baseline_trial_id"]) == (ids["vat"][:10], ids["none"][:10])


def test_delong_leaves_out_models_of_other_bags(root, tmp_path, monkeypatch):
    """Drawn bags have the same numbers in every draw, and often the same labels."""
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10, 50), replicates=2, with_predictions=True)
    rows = analysis.load("made", tmp_path)
    against = {"method": "none", "mean_bag_size": "10"}
    made = compare(rows, against, test="delong", panel_key=None)
    ids = set(rows.loc[(rows["method"] == "vat") & (rows["mean_bag_size"] == 10), "config_id"])
    assert {*made.frame()["trial_id"]} == {one[:10] for one in ids} and len(made.frame()) == 2
    assert "4 pairs were left out: their predictions are of different bags." in " ".join(made.text().split())
    large = rows[(rows["method"] == "none") | (rows["mean_bag_size"] == 50)]
    with pytest.raises(UserError, match=r"--test delong: no row was tested on the same bags as its baseline"):
        compare(large, against, test="delong", panel_key=None)

    def of_another_prevalence(folder, config, replicate, **of):
        frame = run_predictions(folder, config, replicate, **of)
        return frame.assign(label=(frame["bag_index"] % 5 == 4).astype("Int8")) if config in ids else frame

    monkeypatch.setattr(prediction_tests, "run_predictions", of_another_prevalence)
    with pytest.raises(UserError, match="no row was tested on the same bags"):
        compare(rows, against, test="delong", panel_key=None)


def test_a_perfect_model_against_a_constant_one_has_no_verdict(root, monkeypatch):
    rows = analysis.load("made", root)
    perfect = set(rows.loc[rows["method"] == "vat", "config_id"])

    def certain(folder, config, replicate, **of):
        frame = run_predictions(folder, config, replicate, **of)
        return frame.assign(logit=frame["label"] * 4.0 if config in perfect else 0.0)

    monkeypatch.setattr(prediction_tests, "run_predictions", certain)
    made = compare(rows, test="delong", replicates=[1])
    (line,) = made.frame().to_dict("records")
    assert (line["difference"], line["interval"]) == (0.5, "no spread")
    assert all(math.isnan(line[name]) for name in ("lower", "upper", "statistic", "p", "p_holm"))
    assert "[–]: no interval, since all values are equal" in " ".join(made.text().split())


def test_predictions_are_asked_for_where_there_are_none(root, tmp_path):
    rows = analysis.load("made", root)
    rows.attrs.pop("folders")
    with pytest.raises(UserError, match="these rows came from a file or from MLflow"):
        compare(rows, test="delong")


def test_folds_get_the_corrected_test_alone_and_images_are_the_clusters(root):
    rows = analysis.load("folded", root)
    found = compare(rows, metric="instance_auc")
    (line,) = found.frame().to_dict("records")
    own = rows.pivot(index="replicate", columns="method", values="instance_auc")
    ids = rows.groupby("method")["config_id"].first()
    assert (line["trial_id"], line["baseline_trial_id"]) == (ids["vat"][:10], ids["none"][:10])
    wanted = corrected_t((own["vat"] - own["none"]).to_numpy(), 1 / 3)
    assert (line["test"], line["p"]) == ("corrected t", pytest.approx(wanted.p))
    assert "Wilcoxon's test, which cannot be, is left out" in " ".join(found.text().split())
    text = " ".join(compare(rows, test="delong").text().split())
    assert re.search(r"In \d+ of them a class has fewer than 20 bags", text)
    (line,) = compare(rows, test="clusters", replicates=[0]).frame().to_dict("records")
    assert line["units"].startswith("12 images, ")
    assert line["lower"] <= line["difference"] <= line["upper"]


def test_the_command_prints_and_writes(root, tmp_path, capsys):
    at = ["compare", "made", "--root", str(root)]
    assert main([*at, "--baseline", "method=vat"]) == 0
    assert "none − vat" in capsys.readouterr().out
    for name in ("c.csv", "c.tex", "c.html", "c.parquet"):
        assert main([*at, "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).stat().st_size > 300
    capsys.readouterr()
    assert main([*at, "--baseline", "vat"]) == 2
    assert "expected KEY=VALUE" in capsys.readouterr().err
