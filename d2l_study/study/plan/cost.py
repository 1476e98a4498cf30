"""The cost model: how long a study will take. It counts passes, and takes seconds per pass from earlier results.

One pass is one instance that goes through the feature extractor once, forward or backward. A plain training step takes
3 passes: forward, backward to the weights, backward to the inputs.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from d2l_study.learning.packed.structure import STACK_INSTANCES, compilation_pays
from d2l_study.study.plan.gpu_cost import (
    GPU_RUN_SECONDS,
    RunSeconds,
    by_turns,
    stack_form,
    stack_size,
    stacked,
)
from d2l_study.study.plan.plan import Plan, split_for_slots
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.keys import CLASS_MAPS, STACKED, TEACHER_READINGS, TEACHING
from d2l_study.study.space.resources import Resources, trials_on_gpus

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.storage import Storage

PLAIN, LOGIT_DIRECTION, POWER_DIRECTION, POWER_ITERATION = 3.0, 4.0, 5.0, 2.0
"""Passes of a plain step, and passes that R_adv adds. It takes a backward pass to the inputs and a training step of the
perturbed bag; the power direction one forward pass more, and each further iteration a forward and a backward pass."""

CLEAN = 1.0
"""Passes of an unlabelled bag besides those of R_adv: forward alone, since its clean prediction has no gradient."""

NETWORK_PASSES = {
    "lenet": 1.0, "lenet_wide": 3.0, "resnet": 2.0, "lenet_histology": 1.5, "mlp": 0.2, "none": 0.05
}  # fmt: skip
"""The cost of a pass through a network, in passes through the LeNet on digits; of mlp and none by the count of
operations at 1,024 dimensions, which a plan does not know."""

CLASS_MAP = 110.0
"""The cost of a pass of the class map network over a colon image, in passes of the LeNet over a digit."""

SUBSET = 0.05
"""Passes that R_ent adds: it pools the features of the clean pass once more."""

TEST_IMAGES = VAL_IMAGES = 10_000
"""Images of evaluation. Each distinct image is passed once, however many bags hold it."""

PASS_SECONDS = 1.3e-4
STEP_SECONDS = 4e-3
"""Seconds of a pass, and of a step beyond its passes, on a CPU while there are no earlier results: the LeNet on one
core of an AMD EPYC, measured at 40 to 400 instances a step. Those of a GPU are in `gpu_cost`."""

TRIAL_SECONDS = 2.0
"""Seconds of a trial besides its runs: for its worker, its data, and writing its results."""

LEAST_SECONDS = {"cpu": 2.0, "cuda": 0.05}
"""Earlier runs with a shorter training are not counted: most of their time is not spent in steps. On a GPU a run's time
is its part of its stack's."""

ENOUGH_RUNS = 3
"""An estimate from fewer earlier runs is called rough."""


@dataclass(frozen=True)
class Work:
    """The work of one run: its optimizer steps, and the passes of training, validation and test."""

    steps: float
    training: float
    validation: float
    test: float

    @property
    def passes(self) -> float:
        """All passes of the run."""
        return self.training + self.validation + self.test

    def train_seconds(self) -> float:
        """Predicted time of training and validation on a CPU, by the built-in constants."""
        return self.steps * STEP_SECONDS + (self.training + self.validation) * PASS_SECONDS

    def seconds(self) -> float:
        """Predicted time of the whole run on a CPU, by the built-in constants."""
        return self.train_seconds() + self.test * PASS_SECONDS


def work(configuration: Configuration) -> float:
    """The predicted work of one run of a configuration, in passes."""
    return work_of(_values_of(configuration), stage=configuration.stage).passes


def training_work(configuration: Configuration) -> float:
    """The part of `work` that lies between the first and the last report of a run: steps and validations, not the
    test. 0 of what reads a teacher, which takes no step."""
    run = work_of(_values_of(configuration), stage=configuration.stage)
    return run.training + run.validation


def predicted_seconds(configuration: Configuration, resources: Resources, runs: int) -> float:
    """The predicted time of one run by the built-in constants. runs: that are trained in one trial with it."""
    beside = GPU_RUN_SECONDS if resources.kind == "cuda" else 0.0
    return _seconds(_values_of(configuration), configuration.stage, resources, runs).alone + beside


def runs_of_full_stack(configuration: Configuration, resources: Resources) -> int:
    """How many runs of a configuration fill a GPU as one stack; 1 where none is stacked on one, or `resources.pack`
    says how many are."""
    if resources.kind != "cuda" or resources.pack is not None or configuration.stage not in STACKED:
        return 1
    return max(1, int(STACK_INSTANCES / max(1.0, sum(_of_a_step(_values_of(configuration))))))


def gpus_of(resources: Resources, slots: int) -> int:
    """How many GPUs so many trials at a time compute on, at least 1."""
    return max(1, math.ceil(slots / max(1, trials_on_gpus(resources.gpus, 1)))) if resources.gpus > 0 else 1


def _of_a_step(values: Mapping[str, Any]) -> tuple[float, float]:
    """The instances of a teacher's step, of its labelled and of its unlabelled bags."""
    size = _seen(values, _sizes(values)[0], "")
    return values["batch_bags"] * size, _unlabelled_of_a_step(values) * size


def expected_visits(configuration: Configuration) -> float:
    """How many instances the training of a teacher or a student will see, each as often as it is drawn, if it is not
    stopped early: steps × bags of a step × mean instances of a bag."""
    sections: Mapping[str, Any] = configuration.sections
    trained = sections["student" if "student" in sections else "teacher"]
    seen = sections["data"].mean_instances(trained.instances_per_bag)
    bags = trained.bags_of_a_step(sections["data"].unlabelled_bags > 0)
    return float(trained.steps * getattr(trained, "generations", 1) * bags * seen)


def _values_of(configuration: Configuration) -> Mapping[str, Any]:
    """The flat values of a configuration; of given bags also how much a fold of them holds."""
    data = configuration.sections["data"]
    return configuration.values | (data.counts() if hasattr(data, "counts") else {})


def work_of(values: Mapping[str, Any], steps: float | None = None, stage: str = "teacher") -> Work:
    """The work of a run. values: flat values of a configuration, or a row of results; steps: those that were run, if
    training stopped early."""
    if stage not in (*TEACHING, "matched"):
        return _student_work(values, steps, stage)
    steps = float(values["steps"]) if steps is None else steps
    size, distinct, test = _sizes(values)
    adversarial = 0.0
    if values["lambda_adv"] > 0 and values["direction"] == "power":
        adversarial = POWER_DIRECTION + POWER_ITERATION * (values["power_iterations"] - 1)
    elif values["lambda_adv"] > 0:
        adversarial = LOGIT_DIRECTION
    each = PLAIN + adversarial
    if values["lambda_noise"] > 0:
        each += PLAIN * values["noise_rate"]
    if values["lambda_ent"] > 0:
        each += SUBSET
    factor = NETWORK_PASSES.get(values.get("extractor", "lenet"), 1.0)
    validation = math.ceil(steps / values["eval_every"]) * distinct
    of_bags = values["batch_bags"] * each + _unlabelled_of_a_step(values) * (CLEAN + adversarial)
    training = steps * of_bags * _seen(values, size, "")
    return Work(steps, training * factor, validation * factor, (distinct + test) * factor)


def _sizes(values: Mapping[str, Any]) -> tuple[float, float, float]:
    """The mean number of instances in a training bag, the number of distinct validation instances, and of test
    instances."""
    if "mean_bag_size" not in values or values["mean_bag_size"] != values["mean_bag_size"]:  # given bags, not drawn
        size = values["train_instances"] / values["train_bags"]
        return float(size), float(values["val_instances"]), float(values["test_instances"])
    size = float(values["mean_bag_size"])
    # Of d draws from N images about N (1 − exp(−d/N)) are distinct.
    return size, VAL_IMAGES * -math.expm1(-values["val_bags"] * size / VAL_IMAGES), TEST_IMAGES


def _unlabelled_of_a_step(values: Mapping[str, Any]) -> float:
    """The unlabelled bags of a teacher's step. Rows of before there were any lack their keys, or have NaN."""
    count, batch = values.get("unlabelled_bags"), values.get("unlabelled_batch")
    if not values["lambda_adv"] > 0 or count is None or not count > 0:
        return 0.0
    return float(batch if batch is not None and batch == batch else values["batch_bags"])


def _seen(values: Mapping[str, Any], size: float, prefix: str) -> float:
    """The number of instances that a training step takes of a bag of mean size. Without a limit, the key is absent,
    None or NaN. prefix: `student_` for the student's key."""
    limit = values.get(f"{prefix}instances_per_bag")
    return min(size, float(limit)) if limit is not None and limit == limit else size


def _student_work(values: Mapping[str, Any], steps: float | None, stage: str) -> Work:
    """The work of a run of a student or a reference. What reads a teacher needs no training, only the evaluation."""
    size, val, test = _sizes(values)
    if "train_instances" not in values:  # drawn bags: instances of bags, and each test image once
        val, test = min(values["val_bags"] * size, VAL_IMAGES), values["test_bags"] * size + TEST_IMAGES
    if stage in TEACHER_READINGS:
        return Work(0.0, 0.0, 0.0, test)
    if stage in CLASS_MAPS:
        steps = float(values["student_steps"]) if steps is None else steps
        val, test = val / size, test / size  # images
        training = steps * values["student_batch_bags"] * PLAIN * CLASS_MAP
        return Work(steps, training, (steps // values["student_eval_every"] + 1) * val * CLASS_MAP, test * CLASS_MAP)
    if steps is None:
        steps = float(values["student_steps"] * values["generations"])
    seen = steps * values["student_batch_bags"] * _seen(values, size, "student_")
    if stage == "student" and values.get("unlabelled") in (True,) and values["unlabelled_bags"] > 0:
        seen *= 2
    each = PLAIN * (2.0 if values["student_mixup"] > 0 else 1.0) * NETWORK_PASSES[values["network"]]
    validations = steps // values["student_eval_every"] + 1
    validation = validations * val
    return Work(steps, seen * each, validation * NETWORK_PASSES[values["network"]], test)


@dataclass(frozen=True)
class Estimate:
    """The predicted time for the missing runs of a plan.

    rough: whether it rests on built-in constants, few results, or results of another precision; text: for people.
    """

    seconds: float
    rough: bool
    text: str
    shares: Mapping[str, float] = field(default_factory=dict)
    """config_id -> its part of `seconds`, of every configuration that is to be trained; together they are `seconds`."""


def estimate(
    plan: Plan,
    rows: pandas.DataFrame | None,
    slots: int,
    resources: Resources | None = None,
    limit: int | None = None,
    grouped: bool = True,
) -> Estimate:
    """The time for the plan's missing runs with `slots` trials (at least one) at a time.

    rows: earlier results (columns of a study's rows), from which the machine's speed is taken; limit: as in
    `Plan.trials`; grouped: whether configurations may share stacks on a GPU.
    """
    resources, slots = resources or Resources(), max(1, slots)
    trials = plan.trials(limit)
    if not trials:
        return Estimate(0.0, False, "nothing left to do")
    scale, runs, alike = _speed(rows, resources)
    gpus = gpus_of(resources, slots)
    pieces = split_for_slots(trials, slots, lambda c: runs_of_full_stack(c, resources), gpus)
    together = _together((_values_of(c), c.stage, len(replicates)) for c, replicates in pieces)
    lengths, alone, on_gpus = [], dict.fromkeys((t.configuration.config_id for t in trials), 0.0), 0.0
    beside = GPU_RUN_SECONDS if resources.kind == "cuda" else 0.0
    for configuration, replicates in pieces:
        values, stage, count = _values_of(configuration), configuration.stage, len(replicates)
        in_stack = together[stack_form(values, stage)] if grouped and stage in STACKED else count
        one = _seconds(values, stage, resources, in_stack)
        lengths.append(TRIAL_SECONDS + (scale * one.alone + beside) * count)
        on_gpus += scale * one.gpu * count
        alone[configuration.config_id] += lengths[-1]
    seconds = max(makespan(lengths, slots), on_gpus / gpus)
    shares = {config: seconds * length / sum(lengths) for config, length in alone.items()}
    rough = runs < ENOUGH_RUNS or not alike
    if runs == 0:
        basis = "a rough guess: no earlier results to go by"
    else:
        basis = f"{'a rough guess ' if rough else ''}from {runs} earlier run{'s' if runs > 1 else ''}"
        basis += "" if alike else " of another precision"
    return Estimate(seconds, rough, f"about {human_seconds(seconds)} ({basis})", shares)


def _together(runs: Iterable[tuple[Mapping[str, Any], str, int]]) -> Counter[tuple[Any, ...]]:
    """How many runs can share stacks with each other, by `stack_form`. runs: values, stage and count."""
    found: Counter[tuple[Any, ...]] = Counter()
    for values, stage, count in runs:
        if stage in STACKED:
            found[stack_form(values, stage)] += count
    return found


def _seconds(
    values: Mapping[str, Any], stage: str, resources: Resources, runs: int, steps: float | None = None,
    test: bool = True,
) -> RunSeconds:  # fmt: skip
    """The time of one run by the built-in constants. runs: that can share its stack; steps: as in `work_of`; test:
    whether the evaluation on the test split counts."""
    run = work_of(values, steps, stage)
    if resources.kind == "cpu":
        return RunSeconds(processor=run.seconds() if test else run.train_seconds())
    passes = run.passes if test else run.training + run.validation
    if stage not in STACKED or resources.pack == 1:
        return by_turns(run.steps, passes)
    together = min(runs, resources.pack or runs)
    seen, others = _of_a_step(values)
    adversarial = seen + others if values["lambda_adv"] > 0 else 0.0
    compiled = compilation_pays(together * run.steps * seen, together * run.steps * adversarial)
    return stacked(run.steps, passes, stack_size(runs, seen + others, resources.pack), compiled)


def makespan(lengths: list[float], slots: int) -> float:
    """The time until the last trial ends, if each trial, longest first, goes to the slot that is free first (list
    scheduling, Graham 1969). lengths: seconds of each trial."""
    free = [0.0] * min(slots, len(lengths))
    for length in sorted(lengths, reverse=True):
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def earlier_rows(storage: Storage) -> pandas.DataFrame | None:
    """The compacted rows of all studies under a root, each run once; None if there are none."""
    contents = []
    for name in storage.list("studies"):
        try:
            contents.append(storage.read(f"studies/{name}/rows.parquet"))
        except OSError:  # not compacted yet: an estimate does without
            continue
    if not contents:
        return None
    import pandas as pd  # half the time of a plan, and seldom needed by the first one

    frames = []
    for content in contents:
        try:
            frames.append(pd.read_parquet(io.BytesIO(content)))
        except (OSError, ValueError):  # damaged
            continue
    if not frames:
        return None
    return pd.concat(frames, ignore_index=True).drop_duplicates(["config_id", "replicate"])


def human_seconds(seconds: float) -> str:
    """A duration as text: `45 s`, `3 min`, `7 h 20 min`, `3 d 4 h`."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 1:
        return "under 1 s"
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = round(seconds / 3600)
    return f"{hours // 24} d" + (f" {hours % 24} h" if hours % 24 else "")


def _speed(rows: pandas.DataFrame | None, resources: Resources) -> tuple[float, int, bool]:
    """(factor, runs, alike): the median factor by which earlier runs on such a device took longer than the built-in
    constants say, how many runs there are, and whether they had the same precision."""
    ratios: dict[str, list[float]] = {}
    if rows is not None and {"train_seconds", "device", "config_id"} <= set(rows.columns):
        there = rows["device"].astype(str).str.startswith(resources.kind)
        done = rows[there & (rows["train_seconds"] >= LEAST_SECONDS[resources.kind])].to_dict("records")
        together = _row_counts(done) if resources.kind == "cuda" else Counter()
        sharing = max(1.0, 1 / resources.gpus) if resources.gpus else 1.0  # trials that the GPU worked for meanwhile
        for values in done:
            try:
                ran, stage = values.get("steps_run"), str(values.get("stage") or "teacher")
                steps = float(ran) if isinstance(ran, (int, float)) and ran > 0 else None
                runs = together[stack_form(values, stage)] if resources.kind == "cuda" and stage in STACKED else 1
                one = _seconds(values, stage, resources, runs, steps, test=False)
            except (KeyError, TypeError, ValueError):  # a row of another stage, or of an older version
                continue
            predicted = one.processor + one.gpu * sharing
            if math.isfinite(predicted) and predicted > 0:
                ratios.setdefault(str(values.get("precision")), []).append(values["train_seconds"] / predicted)
    alike = resources.precision in (*ratios, "auto") or not ratios
    found = ratios.get(resources.precision) or [ratio for some in ratios.values() for ratio in some]
    return (statistics.median(found) if found else 1.0), len(found), alike


def _row_counts(rows: Iterable[Mapping[str, Any]]) -> Counter[tuple[Any, ...]]:
    """How many runs of a form there are among earlier results; they may have shared stacks."""
    found: Counter[tuple[Any, ...]] = Counter()
    for values in rows:
        with contextlib.suppress(KeyError, TypeError):
            found += _together([(values, str(values.get("stage") or "teacher"), 1)])
    return found
