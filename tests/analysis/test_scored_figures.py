"""Figures of stored predictions and curves, each against a calculation of its own."""

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from label_boxes import misplaced
from make_folds import make_folds
from make_study import make_distillation, make_study
from scipy import stats
from scipy.optimize import minimize_scalar
from sklearn import metrics

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.out_of_fold import pooled_rows
from analysis.cells.scored_cells import scored_cells
from analysis.figures import heatmap, learning_curves, roc
from analysis.figures.marks import COLOURS
from analysis.figures.reliability import Reliability
from analysis.figures.sizes import SIZES
from analysis.statistics.calibration import (
    brier,
    calibration_error,
    calibration_of,
    fit_temperature,
    reliability_bins,
    sigmoid,
)
from analysis.statistics.roc_curves import GRID, RECALL_GRID, mean_band, precision_on_grid, roc_on_grid, sensitivity_at
from d2l_study.errors import UserError


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), replicates=4, with_predictions=True)
    return analysis.load("made", root)


def some_scores(seed=0, count=300):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    return labels, np.round(rng.normal(1.5 * labels - 0.5, 1.2), 1)  # rounded: with ties


def stored(rows, method, num_bags, split="test", level="bag"):
    """label and logit of each replicate, read as a notebook would."""
    root = next(iter(rows.attrs["folders"].values()))
    found = analysis.load_predictions("made", root, method=method, num_bags=num_bags, split=split, level=level)
    return [(g["label"].to_numpy(int), g["logit"].to_numpy(float)) for _, g in found.groupby("replicate")]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_curves_on_the_grid_are_those_of_scikit_learn(seed):
    labels, logits = some_scores(seed)
    false, true, _ = metrics.roc_curve(labels, logits, drop_intermediate=False)
    ours = roc_on_grid(labels, logits)
    assert ours[1:] == pytest.approx(np.interp(GRID, false, true)[1:])
    assert np.trapezoid(ours, GRID) == pytest.approx(metrics.roc_auc_score(labels, logits), abs=0.006)
    precision, recall, _ = metrics.precision_recall_curve(labels, logits)
    wanted = [precision[recall >= r - 1e-12][-1] for r in RECALL_GRID]
    assert precision_on_grid(labels, logits) == pytest.approx(wanted)
    for specificity in (0.5, 0.9, 0.99):
        assert sensitivity_at(labels, logits, specificity) == max(true[1 - false >= specificity - 1e-12])


def test_the_band_of_an_roc_curve_is_the_t_interval_of_the_replicates(rows):
    figure = roc.draw_roc(rows, "roc", "bag")
    axis = next(a for a in figure.axes if "n = 100" in a.get_title())
    curves = []
    for labels, logits in stored(rows, "vat", 100):
        false, true, _ = metrics.roc_curve(labels, logits, drop_intermediate=False)
        curves.append(np.interp(GRID, false, true))
    half = stats.t.ppf(0.975, 3) * np.std(curves, axis=0, ddof=1) / 2
    mean = np.mean(curves, axis=0)
    line = next(one for one in axis.get_lines() if one.get_color() == COLOURS[1])
    assert line.get_ydata()[1:] == pytest.approx(mean[1:])
    corners = axis.collections[1].get_paths()[0].vertices[:, 1]
    assert corners.max() == pytest.approx(min(1, (mean + half).max()))
    at = 10
    for bound in (np.clip(mean + half, 0, 1)[at], np.clip(mean - half, 0, 1)[at]):
        assert np.abs(corners - bound).min() < 1e-9


def test_what_kept_no_predictions_is_counted(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), with_predictions=True)
    make_study(tmp_path, "bare", num_bags=(50,), bag_sizes=(10,), seed=1)
    both = analysis.load(["made", "bare"], tmp_path)
    for figure in (roc.draw_roc(both), Reliability.of(both).draw()):
        assert "without 2 configurations that kept no predictions" in " ".join(figure.get_supxlabel().split())
    alone = roc.draw_roc(analysis.load("made", tmp_path))
    assert "kept no predictions" not in " ".join(alone.get_supxlabel().split())


def test_a_band_needs_two_curves():
    mean, lower, upper = mean_band(np.array([[0.2, 0.4]]), None)
    assert mean.tolist() == [0.2, 0.4]
    assert np.isnan(lower).all()
    assert np.isnan(upper).all()


def test_calibration_error_by_a_loop():
    labels, logits = some_scores(3)
    scores, error = sigmoid(logits), 0.0
    for low in range(10):
        inside = [i for i, p in enumerate(scores) if low / 10 <= p < (low + 1) / 10 or (low == 9 and p == 1)]
        if inside:
            error += abs(sum(labels[i] for i in inside) - sum(scores[i] for i in inside)) / len(scores)
    assert calibration_error(labels, scores) == pytest.approx(error)
    assert brier(labels, scores) == pytest.approx(metrics.brier_score_loss(labels, scores))
    assert reliability_bins(labels, scores)[0].sum() == len(scores)


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_the_temperature_is_that_of_a_direct_search(factor):
    labels, logits = some_scores(4)
    logits = logits * factor
    loss = lambda log_t: np.mean(np.logaddexp(0, -(2 * labels - 1) * logits / math.exp(log_t)))  # noqa: E731
    best = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded", options={"xatol": 1e-9}).x
    assert fit_temperature(labels, logits) == pytest.approx(math.exp(best), rel=1e-4)


def test_a_temperature_stays_within_its_bounds_and_needs_both_classes():
    labels = np.array([0, 0, 1, 1])
    assert fit_temperature(labels, np.array([-1.0, -2, 1, 2])) == 0.05
    assert fit_temperature(labels, np.array([1.0, 2, -1, -2])) == 20
    assert np.isnan(calibration_of((labels, np.ones(4)), (np.ones(4, int), np.ones(4))).temperature)


def test_no_test_label_sets_a_temperature(rows):
    """Fitted to the validation bags of the same run, and only those."""
    frame = Reliability.of(rows, "instance").frame()
    one = frame[(frame["row"] == "vat") & (frame["column"] == "n = 50")].sort_values("replicate")
    for (labels, logits), (_, found) in zip(stored(rows, "vat", 50, "val"), one.iterrows(), strict=True):
        assert found["temperature"] == pytest.approx(fit_temperature(labels, logits))
    for (labels, logits), (_, found) in zip(stored(rows, "vat", 50, "test", "instance"), one.iterrows(), strict=True):
        scaled = 1 / (1 + np.exp(-logits / found["temperature"]))
        assert found["brier_scaled"] == pytest.approx(metrics.brier_score_loss(labels, scaled))


def test_attention_is_no_probability_and_is_in_no_reliability(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=3, with_predictions=True)
    rows = analysis.load("made", tmp_path)
    rows.loc[rows["method"] == "vat", "stage"] = "attention"
    found = Reliability.of(rows, "instance")
    assert set(found.frame()["row"]) == {"none"}
    text = " ".join(found.sheet().caption)
    assert "Attention scores rank instances and are no probabilities" in text
    assert "attention, which is no probability, is left out" in " ".join(found.draw().get_supxlabel().split())
    assert "kept no predictions" not in found.draw().get_supxlabel()
    heads = found.sheet().panels[0].columns
    assert len(heads) == len(set(heads))
    rows["stage"] = "attention"
    with pytest.raises(UserError, match="which is no probability"):
        Reliability.of(rows, "instance")


def test_attention_has_no_pooled_figure_at_a_probability(tmp_path):
    make_folds(tmp_path, images=20, repeats=1)
    rows = analysis.load("folded", tmp_path)
    rows.loc[rows["method"] == "vat", "stage"] = "attention"
    pooled = pooled_rows(rows).set_index("method")
    assert np.isfinite(pooled.loc["none", "instance_f1"]) and np.isfinite(pooled.loc["vat", "instance_auc"])
    assert pooled.loc["vat", ["instance_f1", "instance_accuracy", "bag_nll", "bag_brier"]].isna().all()


def test_the_reliability_figure_shows_shares_of_positives(rows):
    figure = Reliability.of(rows, "bag").draw()
    axis = next(a for a in figure.axes if a.get_title() == "K = 10, n = 50, as trained")
    labels, logits = (np.concatenate(part) for part in zip(*stored(rows, "none", 50), strict=True))
    count, score, share = reliability_bins(labels, 1 / (1 + np.exp(-logits)))
    line = next(one for one in axis.get_lines() if one.get_color() == "#000000" and one.get_marker() == "o")
    assert line.get_xdata() == pytest.approx(score[count >= 5])
    assert line.get_ydata() == pytest.approx(share[count >= 5])


def test_a_heat_map_shows_the_means_of_the_cells(tmp_path):
    made = make_study(tmp_path, num_bags=(50, 100, 200), bag_sizes=(10, 50), replicates=3, missing=((1, 0),)).rows()
    figure = heatmap.draw_heatmap(made)
    (field,) = figure.axes[1].get_images()
    assert figure.axes[1].get_title() == "vat"
    wanted = made[made.method == "vat"].pivot_table("bag_auc", "num_bags", "mean_bag_size").to_numpy()
    assert np.asarray(field.get_array()) == pytest.approx(wanted)
    texts = [t.get_text() for t in figure.axes[1].texts]
    assert f"{wanted[0, 0]:.3f}" in texts[0]
    layout = arrange(made, None, "num_bags", "mean_bag_size", "method")
    assert f"± {layout.cells[layout.panels[1], layout.rows[0], layout.columns[0]].interval.half_width:.3f}" in texts[0]


def test_a_row_that_no_panel_fills_is_left_out(tmp_path):
    made = make_study(tmp_path, num_bags=(50, 100, 200), bag_sizes=(10, 50), replicates=3).rows()
    plain = made.method == "none"
    made = made[~plain | ((made.num_bags == 50) & (made.mean_bag_size == 10))].copy()
    plain = made.method == "none"
    made["lambda_adv"] = made.num_bags.map({50: 0.25, 100: 0.5, 200: 1.0}).mask(plain, 0.0)
    made["epsilon"] = made.mean_bag_size.map({10: 2.0, 50: 4.0})
    made["num_bags"], made["mean_bag_size"] = 50, 10
    made.attrs = {"study": "made", "varied": ["lambda_adv", "epsilon"]}
    axis = heatmap.draw_heatmap(made).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["0.25", "0.5", "1"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["2", "4"]
    assert len(axis.texts) == 6


def with_curves(root, curves):
    """A study of one arm whose replicates have these curves."""
    folder = make_study(root, num_bags=(50,), bag_sizes=(10,), methods=("none",), replicates=0)
    entry = folder.plan()[0] | {"replicates": list(range(len(curves)))}
    folder.write_plan([entry])
    for r, points in enumerate(curves):
        row = {"status": "done", "bag_auc": 0.9, "val_bag_auc": 0.9, "best_step": 200}
        files = {} if points is None else {"curve.json": json.dumps(points).encode()}
        folder.ledger.commit(entry["config_id"], r, row, files)
    return analysis.load("made", root)


def test_learning_curves_are_the_stored_ones_and_their_mean(tmp_path):
    steps = [{100: 0.5, 200: 0.7, 300: 0.6}, {100: 0.6, 200: 0.9}]
    made = with_curves(tmp_path, [[{"step": s, "val_bag_auc": v} for s, v in one.items()] for one in steps])
    (axis,) = learning_curves.draw_learning(made).axes
    drawn = [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.get_lines()]
    assert [(s, v) for s, v in steps[0].items()] in drawn
    assert drawn[-1] == [(100, pytest.approx(0.55)), (200, pytest.approx(0.8))]  # where both still are
    assert [(200, 0.7)] in drawn  # the snapshot
    with pytest.raises(UserError, match=r"--metric val_bag_acu: no curve has it.*val_bag_auc"):
        learning_curves.draw_learning(made, "val_bag_acu")


def test_what_a_kind_lacks_is_said(tmp_path, rows):
    plain = make_study(tmp_path / "a", num_bags=(50,), bag_sizes=(10,), replicates=2)
    bare = analysis.load("made", tmp_path / "a")
    for draw, text in (
        (lambda: roc.draw_roc(bare), "kept predictions of the level bag"),
        (lambda: roc.draw_roc(plain.rows()), "came from a file or from MLflow alone"),
        (lambda: Reliability.of(rows.assign(instance_auc=np.nan), "instance"), "level instance"),
        (lambda: learning_curves.draw_learning(rows), r"kept curve\.json"),
        (lambda: heatmap.draw_heatmap(bare), "needs two keys that vary"),
        (lambda: heatmap.draw_heatmap(rows, row_key="num_bags", column_key="method"), "have a panel each"),
        (lambda: heatmap.draw_heatmap(rows, row_key="num_bags", column_key="lambda_adv"), "no arm has several values"),
        (lambda: heatmap.draw_heatmap(bare, size="poster"), "needs two keys"),
        (lambda: roc.draw_roc(rows, size="pgae"), "did you mean 'page'"),
    ):
        with pytest.raises(UserError, match=text):
            draw()
    many = pd.concat([bare.assign(epsilon=float(i), config_id=bare["config_id"] + str(i)) for i in range(30)])
    many.attrs = {**bare.attrs, "varied": ["epsilon", "lambda_adv"]}
    with pytest.raises(UserError, match="30 values, more than the 24"):
        heatmap.draw_heatmap(many, row_key="epsilon", column_key="lambda_adv")


@pytest.mark.parametrize("size", sorted(SIZES))
def test_labels_do_not_overlap_in_any_size(tmp_path, rows, size):
    """Titles, labels, ticks, the legend and the footnote of each figure, and everything within the figure."""
    students = make_distillation(tmp_path, num_bags=(50, 100), replicates=3).rows()
    grid = make_study(tmp_path / "g", num_bags=(50, 100, 200, 400), bag_sizes=(10, 50, 100), replicates=2).rows()
    long = {name: f"{name}, an arm whose name is a good deal longer than its panel is wide" for name in ("none", "vat")}
    from analysis.figures import metric_curves, paired

    drawn = [
        roc.draw_roc(rows, "roc", "bag", size=size),
        Reliability.of(rows, "bag").draw(size),
        heatmap.draw_heatmap(grid, size=size),
        heatmap.draw_heatmap(grid.replace({"method": long}), size=size),
        metric_curves.draw_metric_curves(grid, size=size),
        metric_curves.draw_metric_curves(students, size=size),
        paired.draw_pairs(students, size=size),
    ]
    for figure in drawn:
        assert figure.get_figwidth() == pytest.approx({"column": 3.4, "page": 7.0, "slide": 40 / 3}[size])
        if size == "slide":
            assert figure.get_figheight() == pytest.approx(7.5)
        assert misplaced(figure) == []


def test_colours_of_a_heat_map_rise_in_grey():
    import matplotlib as mpl

    shades = mpl.colormaps["cividis"](np.linspace(0, 1, 50))[:, :3] @ [0.299, 0.587, 0.114]
    assert (np.diff(shades) > 0).all()


def test_a_figure_is_written_in_every_format(tmp_path, rows):
    from analysis.figures.files import save_figure

    figure = roc.draw_roc(rows, "pr", "instance")
    heads = {".svg": b"<?xml", ".pdf": b"%PDF", ".png": b"\x89PNG"}
    for suffix, head in heads.items():
        assert io.FileIO(save_figure(figure, tmp_path / f"f{suffix}")).read(5).startswith(head[:4])


@pytest.mark.parametrize(("kept", "expected"), [("seen", "seen"), ("earlier", None), ("earlier, no noise", "true")])
def test_a_temperature_is_fitted_to_the_labels_that_training_saw(tmp_path, kept, expected):
    """A quarter of the validation labels is flipped; an earlier file of such a run has the true ones only."""
    folder = make_study(
        tmp_path, num_bags=(50,), bag_sizes=(10,), methods=("none",), replicates=1, with_predictions=True
    )
    (entry,) = folder.plan()
    noise = 0.0 if kept == "earlier, no noise" else 0.25
    folder.write("", folder.resolved(), [{**entry, "values": {**entry["values"], "label_noise": noise}}])
    frame = pd.read_parquet(io.BytesIO(folder.ledger.read_file(entry["config_id"], 0, "predictions.parquet")))
    val = ((frame["split"] == "val") & (frame["level"] == "bag")).to_numpy()
    true, logit = frame.loc[val, "label"].to_numpy(int), frame.loc[val, "logit"].to_numpy(float)
    seen = np.where(np.arange(len(true)) % 4 == 0, 1 - true, true)
    if kept == "seen":
        frame["seen_label"] = pd.array([pd.NA] * len(frame), dtype="Int8")
        frame.loc[val, "seen_label"] = seen
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    record = folder.ledger.read(entry["config_id"], 0)
    make_again(folder, entry["config_id"], record["row"], out.getvalue())
    _, (cell,) = scored_cells(analysis.load("made", tmp_path), "bag", "reliability")
    if expected is None:
        assert not cell.validation
        return
    labels, scores = cell.validation[0]
    wanted = {"seen": seen, "true": true}[expected]
    assert labels.tolist() == wanted.tolist() and scores.tolist() == logit.tolist()
    other = fit_temperature(true if expected == "seen" else seen, logit)
    assert calibration_of(cell.test[0], cell.validation[0]).temperature != pytest.approx(other)
    test = frame[(frame["split"] == "test") & (frame["level"] == "bag")]
    assert cell.test[0][0].tolist() == test["label"].tolist()


def make_again(folder, config, row, predictions):
    """Commit the run with other predictions in the place of those it has."""
    folder.storage.delete(f"{folder.ledger.run_key(config, 0)}/commit.json")
    assert folder.ledger.commit(config, 0, row, {"predictions.parquet": predictions})
