"""Metrics of instances with intervals over images: what is drawn, what the table says, what it refuses."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest
from make_folds import make_folds
from make_study import make_study
from sklearn.metrics import average_precision_score

import analysis
from analysis.cells.bootstrap_intervals import bootstrap_interval, resamples_sentences
from analysis.cells.image_intervals import RESAMPLES
from analysis.cli import main
from analysis.rows.exported_files import export
from analysis.statistics.cluster_bootstrap import LEAST_CLUSTERS, ClusterBootstrap
from analysis.statistics.delong import delong_test
from analysis.statistics.weighted_metrics import WEIGHTED_METRICS
from analysis.tables.comparison import compare
from analysis.tables.image_table import image_table
from analysis.tables.study_table import table
from d2l_study.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_folds(root, "tiled", images=30, folds=3, repeats=2, tiles=True, oracle=True, data="a")
    make_folds(root, "split", images=24, folds=3, repeats=1, partition="given split", tiles=True, data="b")
    make_folds(root, "lacking", images=30, folds=3, repeats=2, tiles=True, failed=((0, 4),), data="c")
    make_folds(root, "grouped", images=30, folds=3, repeats=2, tiles=True, data="e", per_group=3)
    make_folds(root / "other", "alone", images=30, folds=3, repeats=2, tiles=True, data="e", per_group=1)
    make_folds(root, "older", images=30, folds=3, repeats=1, data="d")
    return root


def of(frame, method, metric):
    (row,) = frame[(frame["row"] == method) & (frame["metric"] == metric)].to_dict("records")
    return row


@pytest.mark.slow
def test_all_images_of_a_repeat_are_drawn_with_the_runs_of_their_folds(root):
    frame = image_table(analysis.load("tiled", root)).frame()
    assert set(frame["metric"]) == set(WEIGHTED_METRICS) and set(frame["row"]) == {"none", "vat", "oracle †"}
    assert (frame["trial_id"] == frame["config_id"].str[:10]).all()
    assert (frame["images"] == 30).all() and (frame["tested"] == 2).all() and (frame["instances"] == 480).all()
    given = frame[frame["lower"].notna()]
    assert ((given["lower"] <= given["value"]) & (given["value"] <= given["upper"])).all()
    without = frame[frame["lower"].isna()]  # the oracle makes no error, whichever images are drawn
    assert "oracle †" in set(without["row"]) and (without["value"] == 1).all()
    assert (without["interval"] == "no spread").all()

    scores = analysis.load_predictions("tiled", root, method="none", split="test", level="instance")
    values = np.full((2, 30), np.nan)
    for (replicate, bag), own in scores.groupby(["replicate", "bag_index"]):
        if own["label"].nunique() == 2:
            values[replicate // 3, bag] = average_precision_score(own["label"].to_numpy(int), own["logit"])
    found = of(frame, "none", "instance_ap_within")
    assert found["value"] == pytest.approx(np.nanmean(values, axis=1).mean())
    draws = np.random.default_rng(0)
    chosen = [draws.integers(0, 30, 30) for _ in range(RESAMPLES)]
    means = [np.nanmean(values[:, one], axis=1).mean() for one in chosen]
    assert (found["lower"], found["upper"]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_of_a_given_split_each_replicate_is_by_itself(root):
    rows = analysis.load("split", root)
    frame = image_table(rows, "instance_froc").frame()
    assert (frame["images"] == 8).all() and (frame["tested"] == 3).all()
    done = rows[rows["method"] == "none"]
    assert of(frame, "none", "instance_froc")["value"] == pytest.approx(done["instance_froc"].mean())


def test_images_of_one_patient_are_drawn_together(root):
    """The predictions of both studies are the same, but for what they say of groups."""
    rows = analysis.load("grouped", root)
    alone = image_table(analysis.load("alone", root / "other")).frame()
    frame = image_table(rows).frame()
    assert (frame["images"] == 30).all() and (frame["groups"] == 10).all() and (alone["groups"] == 30).all()
    assert image_table(analysis.load("tiled", root)).frame()["groups"].isna().all()
    assert frame["value"].tolist() == alone["value"].tolist()

    scores = analysis.load_predictions("grouped", root, method="none", split="test", level="instance")
    values = np.full((2, 30), np.nan)
    for (replicate, bag), own in scores.groupby(["replicate", "bag_index"]):
        if own["label"].nunique() == 2:
            values[replicate // 3, bag] = average_precision_score(own["label"].to_numpy(int), own["logit"])
    draws = np.random.default_rng(0)
    images_of = np.arange(30).reshape(10, 3)
    means = []
    for _ in range(RESAMPLES):
        chosen = images_of[draws.integers(0, 10, 10)].ravel()
        means.append(np.nanmean(values[:, chosen], axis=1).mean())
    found = of(frame, "none", "instance_ap_within")
    assert (found["lower"], found["upper"]) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))

    said = " ".join(image_table(rows).text().split())
    assert "[95 % interval over 10 groups of 30 images]" in said
    assert "too narrow below about 20 groups." in said
    assert "Images of one group (patient or the like) are taken together." in said
    by_image = " ".join(image_table(analysis.load("alone", root / "other")).text().split())
    assert "over 30 images]" in by_image and "No two images are said to be of one patient" in by_image
    older = " ".join(image_table(analysis.load("tiled", root)).text().split())
    assert "a version that did not keep the patients of images" in older


def test_two_models_are_compared_by_groups_of_images_and_of_bags(root):
    rows = analysis.load("grouped", root)
    made = compare(rows, metric="instance_auc", test="clusters", replicates=[1])
    (line,) = made.frame().to_dict("records")
    others = analysis.load("alone", root / "other")
    (alone,) = compare(others, metric="instance_auc", test="clusters", replicates=[1]).frame().to_dict("records")
    groups = analysis.load_predictions("grouped", root, method="none", split="test", level="bag", replicate=1)["group"]
    assert groups.nunique() >= LEAST_CLUSTERS and line["interval"] == "image bootstrap"
    assert line["units"] == f"{groups.nunique()} groups of 10 images, 160 instances"
    assert line["difference"] == alone["difference"] and (line["lower"], line["upper"]) != (
        alone["lower"], alone["upper"]
    )  # fmt: skip
    assert "Images of one group (patient or the like) are taken together." in " ".join(made.text().split())

    bags = compare(rows, test="delong", replicates=[1])
    (line,) = bags.frame().to_dict("records")
    of_run = {
        method: analysis.load_predictions("grouped", root, method=method, split="test", level="bag", replicate=1)
        .sort_values("bag_index") for method in ("none", "vat")
    }  # fmt: skip
    label, group = (of_run["vat"][name].to_numpy(int) for name in ("label", "group"))
    wanted = delong_test(label, of_run["vat"]["logit"], of_run["none"]["logit"], group=group)
    assert line["interval"] == "normal"
    assert (line["lower"], line["p"]) == pytest.approx((wanted.lower, wanted.p))
    assert line["units"] == f"5 + 5 bags of {len(set(group))} groups"
    said = " ".join(bags.text().split())
    assert "Bags of one group (patient or the like) are taken together." in said and "Obuchowski" in said
    assert "did not keep the patients of bags" in " ".join(
        compare(analysis.load("tiled", root), test="delong", replicates=[1]).text().split()
    )


def test_given_splits_are_told_from_folds(root, tmp_path):
    """Each has a test part of its own, so that an interval over all their images is one of values over few."""
    make_folds(tmp_path, "own", images=40, folds=8, repeats=1, partition="given splits", tiles=True, data="g")
    said = " ".join(image_table(analysis.load("own", tmp_path), "instance_auc").text().split())
    assert "Means over 8 replicates, for which the same images are drawn." in said and "folds of a repeat" not in said
    assert "A replicate tests as few as 5 images of these: such intervals are too narrow, and of metrics" in said
    for name in ("tiled", "split"):
        assert "as few as" not in image_table(analysis.load(name, root), "instance_auc").text()


def test_what_few_groups_leave_untested_is_said(root, tmp_path):
    bags = " ".join(compare(analysis.load("grouped", root), test="delong", replicates=[0]).text().split())
    assert "a class has fewer than 20 bags, or is in fewer than 20 groups: too few" in bags
    make_folds(tmp_path, "lonely", images=30, folds=3, repeats=1, data="f", per_group=30)
    rows = analysis.load("lonely", tmp_path)
    bags = compare(rows, test="delong", replicates=[0, 1])
    assert bags.frame()["p"].isna().all()
    assert "In 2 of them a class has one bag, or is in one group, only: not tested." in " ".join(bags.text().split())
    for made in (image_table(rows), compare(rows, test="clusters", replicates=[0])):
        assert made.frame()["lower"].isna().all()
        said = " ".join(made.text().split())
        assert "Of fewer than 8 images or groups of images there is no interval and no test." in said


@pytest.mark.parametrize(("test", "noun"), [("clusters", "images or groups of images"), ("delong", "groups of bags")])
def test_fewer_groups_than_a_test_asks_for_are_not_tested_and_more_of_them_are(root, test, noun):
    rows = analysis.load("grouped", root)
    groups = [
        analysis.load_predictions("grouped", root, method="none", split="test", level="bag", replicate=r)["group"]
        for r in (0, 1)
    ]
    assert [one.nunique() for one in groups] == [LEAST_CLUSTERS - 1, LEAST_CLUSTERS + 1]
    few, enough = (compare(rows, test=test, replicates=[r]) for r in (0, 1))
    (line,), (other,) = (made.frame().to_dict("records") for made in (few, enough))
    assert line["interval"] == "none" and line["difference"] == pytest.approx(line["mean"] - line["baseline_mean"])
    assert all(math.isnan(line[name]) for name in ("lower", "upper", "p", "p_holm", "smallest_p"))
    assert not any(math.isnan(other[name]) for name in ("lower", "upper", "p", "p_holm", "smallest_p"))
    said, others = (" ".join(made.text().split()) for made in (few, enough))
    none = f"Of fewer than 8 {noun} there is no interval and no test."
    assert none in said and none not in others
    if test == "clusters":
        narrow = f"Fewer than 20 {noun}: intervals are too narrow, and p-values too small."
        assert narrow in others and narrow not in said


def test_resamples_without_a_value_are_counted():
    drawn = [ClusterBootstrap(0.9, 0.8, 0.1, 0.0, 0.2, 0.1, 10, 90, resamples, 999) for resamples in (999, 400)]
    assert resamples_sentences(drawn[:1]) == []
    (said,) = resamples_sentences(drawn)
    assert "at least 400 of 999 count. Where fewer than half do, nothing is tested." in said
    kinds = [bootstrap_interval(one, 2.0).kind for one in drawn]
    assert kinds == ["image bootstrap", "seldom defined"]


@pytest.mark.slow
def test_the_table_has_a_panel_for_each_kind_and_says_what_was_drawn(root):
    text = image_table(analysis.load("tiled", root)).text()
    assert "all test instances" in text and "by image" in text and "FROC" in text
    said = " ".join(text.split())
    assert "[95 % interval over 30 images]" in said and f"{RESAMPLES} bootstrap samples of whole images." in said
    assert "Means over 2 repeats" in said
    assert "FROC: mean sensitivity to lesions" in said and "hold a positive" in said
    assert "Left out: none, repeat 1 (lacks fold 1)." in " ".join(
        image_table(analysis.load("lacking", root)).text().split()
    )


def test_runs_of_an_earlier_version_have_what_their_predictions_hold(root):
    """Their rows have no metric of places, and their predictions no places and no threshold."""
    rows = analysis.load("older", root)
    found = set(image_table(rows).frame()["metric"])
    assert found == {"instance_auc", "instance_ap", "instance_auc_within", "instance_ap_within"}
    with pytest.raises(UserError, match="no run of study 'older' has instance_froc: it needs the places of tiles"):
        image_table(rows, ["instance_froc"])
    shown = table(rows).text()
    assert "FROC" not in shown and "Dice" not in shown


def test_rows_with_and_without_the_new_metrics_share_a_table(root):
    shown = table(analysis.load(["older", "tiled"], root), ["instance_auc", "instance_froc"]).text()
    (line,) = [line for line in shown.splitlines() if line.startswith("| none (study=older)")]
    assert line.rstrip(" |").endswith("undefined") or line.rstrip(" |").endswith("–")


def test_the_table_of_a_study_shows_localisation_beside_the_auc(root):
    text = table(analysis.load("tiled", root)).text()
    for head in ("AUC within images", "average precision within images", "Dice within images tuned", "FROC"):
        assert head in text


def test_two_models_are_compared_by_any_of_these_metrics(root):
    rows = analysis.load("tiled", root)
    made = compare(rows, metric="instance_froc", test="clusters", replicates=[0])
    (line,) = made.frame().to_dict("records")
    values = rows[rows["replicate"] == 0].set_index("method")["instance_froc"]
    assert line["mean"] == pytest.approx(values["vat"]) and line["baseline_mean"] == pytest.approx(values["none"])
    assert line["units"] == "10 images, 160 instances"
    several = compare(rows, metric=["instance_auc", "instance_dice_tuned"], test="clusters", replicates=[1, 2]).frame()
    assert len(several) == 4 and set(several["metric"]) == {"instance_auc", "instance_dice_tuned"}
    for metric, test in (("bag_auc", "clusters"), ("instance_froc", "delong")):
        with pytest.raises(UserError, match=rf"--test {test}: is about .*, found --metric {metric}"):
            compare(rows, metric=metric, test=test)


def test_what_a_table_over_images_cannot_do_is_said(root, tmp_path, capsys):
    at = ["tables", "tiled", "--root", str(root), "--intervals", "images"]
    for words in (["--rows", "pooling"], ["--columns", "pooling"], ["--panel", "none"], ["--published"]):
        assert main([*at, *words]) == 2
        assert f"error: {words[0]}: not beside --intervals images" in capsys.readouterr().err
    assert main([*at, "--metric", "instance_frog"]) == 2
    assert "did you mean 'instance_froc'" in capsys.readouterr().err
    assert main([*at, "--metric", "instance_froc", "--format", "csv"]) == 0
    assert len(pd.read_csv(io.StringIO(capsys.readouterr().out))) == 3
    export(analysis.load("tiled", root), tmp_path / "rows.csv")
    assert main(["tables", str(tmp_path / "rows.csv"), "--intervals", "images"]) == 2
    assert "predictions are in a study's folder" in capsys.readouterr().err
    make_study(tmp_path, num_bags=(20,), bag_sizes=(10,), replicates=2, with_predictions=True)
    assert main(["tables", "made", "--root", str(tmp_path), "--intervals", "images"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --intervals images: ") and "Traceback" not in said
