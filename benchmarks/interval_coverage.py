"""How often the 95 % intervals of tables hold the truth, by simulation: 5 to 50 replicates.

mean        E AUC, replicates sigmoid(N(2.5, s)) for s = 0.4 and 1.0 (skewed): `mean_interval`, t on the logit
bca         the same from 20 replicates on by the BCa bootstrap (Efron, 1987), which tables once had there
difference  of two methods that share their bags: sigmoid(2.5 + e + N(0, 0.3) + 0.3 [method]), e ~ N(0, s):
            `paired_difference`
folds       10 folds, R repeats, correlated as Nadeau and Bengio assume (0.1 between any two): plain and corrected
small folds AUC of folds that test m bags of each class, normal scores, models of folds a little apart: how often all
            folds are equal, and of the others the coverage of the corrected interval, its width, and how often it is
            too wide

Where an interval says nothing there is none (`without_void_bounds`); the coverage is that of the others.

python benchmarks/interval_coverage.py [--draws 4000] [--bca-draws 1500] [--fold-draws 1500]
"""

from __future__ import annotations

import argparse

import numpy as np
from options import whole_number
from scipy.special import expit, logit
from scipy.stats import bootstrap, norm, t

from analysis.statistics.intervals import WIDEST, mean_difference, mean_interval, paired_difference


def mean_coverage(count: int, spread: float, draws: int) -> float:
    truth = expit(np.random.default_rng(1).normal(2.5, spread, 2_000_000)).mean()
    samples = expit(np.random.default_rng(count).normal(2.5, spread, (draws, count)))
    given = [i for i in map(mean_interval, samples) if i.has_bounds]
    return float(np.mean([i.lower <= truth <= i.upper for i in given]))


def bca_coverage(count: int, spread: float, draws: int) -> float:
    truth = expit(np.random.default_rng(1).normal(2.5, spread, 2_000_000)).mean()
    samples = expit(np.random.default_rng(count).normal(2.5, spread, (draws, count)))
    found = bootstrap(
        (samples,), np.mean, axis=1, n_resamples=2999, method="BCa", rng=np.random.default_rng(0), batch=100
    )
    low, high = found.confidence_interval
    return float(np.mean((low <= truth) & (truth <= high)))


def difference_coverage(count: int, spread: float, draws: int) -> float:
    def sample(rng: np.random.Generator, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        shared = 2.5 + rng.normal(0, spread, size)
        return expit(shared + 0.3 + rng.normal(0, 0.3, size)), expit(shared + rng.normal(0, 0.3, size))

    first, second = sample(np.random.default_rng(1), (2_000_000,))
    truth = float(np.mean(first - second))
    found = 0
    for a, b in zip(*sample(np.random.default_rng(count), (draws, count)), strict=True):
        interval = paired_difference(dict(enumerate(a)), dict(enumerate(b)))
        found += interval.lower <= truth <= interval.upper
    return found / draws


def fold_coverage(count: int, ratio: float | None, draws: int, correlation: float = 0.1) -> float:
    rng = np.random.default_rng(count)
    common = rng.normal(0, correlation**0.5, (draws, 1))
    values = common + rng.normal(0, (1 - correlation) ** 0.5, (draws, count))
    intervals = [mean_difference(one, test_train_ratio=ratio) for one in values]
    return float(np.mean([i.lower <= 0 <= i.upper for i in intervals]))


def small_folds(folds: int, auc: float, bags: int, draws: int) -> str:
    """bags: of each class in a fold"""
    rng = np.random.default_rng(folds * 1000 + bags)
    apart = norm.ppf(auc) * 2**0.5 + rng.normal(0, 0.2, (draws, folds, 1, 1))
    positive, negative = rng.normal(apart, 1, (draws, folds, bags, 1)), rng.normal(0, 1, (draws, folds, 1, bags))
    areas = (positive > negative).mean((-1, -2))
    equal = np.ptp(areas, axis=1) < 1e-12
    found = [logit_bounds(one, 1 / (folds - 2)) for one in areas[~equal]]
    truth = float(areas.mean())
    holds = np.mean([lower <= truth <= upper for lower, upper in found])
    widths = np.array([upper - lower for lower, upper in found])
    wide = np.mean(widths > WIDEST)
    return f"equal {equal.mean():.2f}, holds {holds:.3f}, width {np.median(widths):.2f}, > {WIDEST} {wide:.2f}"


def logit_bounds(values: np.ndarray, ratio: float) -> tuple[float, float]:
    """Those of `mean_interval` for folds, however wide."""
    mean, count = values.mean(), len(values)
    error = values.std(ddof=1) * (1 / count + ratio) ** 0.5 / (mean * (1 - mean))
    half = t.ppf(0.975, count - 1) * error
    lower, upper = expit(logit(mean) + half * np.array([-1, 1]))
    return float(lower), float(upper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=whole_number, default=4000)
    parser.add_argument("--bca-draws", type=whole_number, default=1500)
    parser.add_argument("--fold-draws", type=whole_number, default=1500)
    arguments = parser.parse_args()
    for spread in (0.4, 1.0):
        for count in (5, 10, 20, 50):
            draws = arguments.draws
            mean, difference = mean_coverage(count, spread, draws), difference_coverage(count, spread, draws)
            bca = f", bca {bca_coverage(count, spread, arguments.bca_draws):.3f}" if count >= 20 else ""
            print(f"s = {spread}, {count:2} replicates: mean {mean:.3f}{bca}, difference {difference:.3f}", flush=True)
    for repeats in (1, 5):
        plain, corrected = (fold_coverage(10 * repeats, ratio, arguments.draws) for ratio in (None, 1 / 9))
        print(f"10 folds × {repeats} repeats: plain {plain:.3f}, corrected {corrected:.3f}", flush=True)
    for folds in (5, 10):
        for auc in (0.75, 0.9, 0.97):
            for bags in (1, 2, 3, 5, 10):
                found = small_folds(folds, auc, bags, arguments.fold_draws)
                print(f"{folds} folds, AUC {auc}, {bags} bags of each class: {found}", flush=True)


if __name__ == "__main__":
    main()
