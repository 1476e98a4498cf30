"""The cost model counts passes as the method page does, and takes a machine's speed from its results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from d2l_study.study.commands.plan_summary import show_plan
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.cost import (
    TEST_IMAGES,
    earlier_rows,
    estimate,
    gpus_of,
    human_seconds,
    makespan,
    runs_of_full_stack,
    work,
    work_of,
)
from d2l_study.study.plan.plan import Plan, make_plan, split_for_slots
from d2l_study.study.space.load import load_space
from d2l_study.study.space.resources import Resources

TEXT = """\
description: a space for tests
data: {num_bags: [50, 100], mean_bag_size: 10}
teacher: {steps: 100, batch_bags: 4, eval_every: 50}
methods:
  none: {}
  vat: {teacher: {lambda_adv: 1.0}}
replicates: 5
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return make_plan(load_space(path), "data")


def values(plan: Plan, **changed: Any) -> dict[str, Any]:
    return {**plan.configurations[0].values, **changed}


def rows_of(plan: Plan, factor: float, **columns: Any) -> pd.DataFrame:
    """Earlier results, each `factor` times as slow as the built-in constants say."""
    rows = []
    for c in plan.configurations:
        for replicate in range(plan.replicates):
            seconds = factor * work_of(c.values).train_seconds()
            rows.append({**c.values, "config_id": c.config_id, "replicate": replicate, "train_seconds": seconds,
                         "device": "cpu", "precision": "float32", "steps_run": 100, **columns})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, 3),
        ({"lambda_adv": 1.0}, 7),
        ({"lambda_adv": 1.0, "direction": "power"}, 8),
        ({"lambda_adv": 1.0, "direction": "power", "power_iterations": 3}, 12),
        ({"direction": "power"}, 3),  # without a weight the direction costs nothing
        ({"lambda_noise": 1.0, "noise_rate": 0.5}, 4.5),
    ],
)
def test_a_step_takes_the_passes_of_its_regularizers(plan: Plan, changed: dict[str, Any], passes: float) -> None:
    assert work_of(values(plan, **changed)).training == pytest.approx(100 * 4 * 10 * passes)


def test_the_entropy_term_is_small_but_not_free(plan: Plan) -> None:
    plain, entropy = (work_of(values(plan, lambda_ent=weight)).training for weight in (0.0, 1.0))
    assert plain < entropy < 1.1 * plain


def test_evaluation_passes_each_distinct_image_once(plan: Plan) -> None:
    few = work_of(values(plan, val_bags=20))
    assert few.validation == pytest.approx(2 * 200, rel=0.02)  # two validations of 20 bags of 10, few drawn twice
    many = work_of(values(plan, val_bags=100_000))
    assert many.validation == pytest.approx(2 * 10_000)
    assert few.test == pytest.approx(TEST_IMAGES + 200, rel=0.02)


def test_a_step_that_sees_part_of_a_bag_costs_that_part(plan: Plan) -> None:
    whole, half, more = (work_of(values(plan, instances_per_bag=limit)) for limit in (None, 5, 500))
    assert half.training == whole.training / 2 and half.validation == whole.validation and more == whole
    old = {name: value for name, value in values(plan).items() if name != "instances_per_bag"}
    assert work_of(old) == whole == work_of({**old, "instances_per_bag": float("nan")})  # rows without the key


def test_work_grows_with_bags_steps_and_regularizers(plan: Plan) -> None:
    by_label = {c.label: work(c) for c in plan.configurations}
    assert by_label["none n=50"] < by_label["none n=100"] < by_label["vat n=100"]  # more validation bags; more passes


def test_trials_go_to_the_slot_that_is_free_first() -> None:
    assert makespan([3, 3, 2, 2, 2], 1) == 12
    assert makespan([3, 3, 2, 2, 2], 2) == 7  # 3+2+2 | 3+2: longest first
    assert makespan([5, 1], 8) == 5


def test_without_results_an_estimate_is_a_rough_guess(plan: Plan) -> None:
    guess = estimate(plan, None, 2)
    assert guess.rough
    assert "rough guess" in guess.text
    assert human_seconds(guess.seconds) in guess.text
    on_gpu = estimate(plan, None, 1, Resources(gpus=1))
    assert on_gpu.seconds < estimate(plan, None, 1).seconds


def test_results_of_the_same_device_set_the_speed(plan: Plan) -> None:
    guess, slow = estimate(plan, None, 1), estimate(plan, rows_of(plan, 10.0), 1)
    assert not slow.rough
    assert "from 20 earlier runs" in slow.text
    trials = len(plan.trials())
    assert slow.seconds - 2 * trials == pytest.approx(10 * (guess.seconds - 2 * trials))
    other = estimate(plan, rows_of(plan, 10.0, device="cuda:0"), 1)
    assert (other.seconds, other.rough) == (guess.seconds, True)


def test_one_odd_result_does_not_turn_the_estimate(plan: Plan) -> None:
    rows = rows_of(plan, 1.0)
    rows.loc[0, "train_seconds"] = 1e6
    assert estimate(plan, rows, 1).seconds == pytest.approx(estimate(plan, None, 1).seconds)


def test_few_results_or_of_another_precision_stay_rough(plan: Plan) -> None:
    assert estimate(plan, rows_of(plan, 1.0).head(2), 1).rough
    other = estimate(plan, rows_of(plan, 4.0, precision="bfloat16"), 1)
    assert other.rough
    assert "another precision" in other.text


def test_runs_that_stopped_early_do_not_make_the_machine_look_fast(plan: Plan) -> None:
    rows = rows_of(plan, 1.0)
    half = [work_of(row, 50).train_seconds() for row in rows.to_dict("records")]
    stopped = rows.assign(steps_run=50, train_seconds=half)
    assert estimate(plan, stopped, 1).seconds == pytest.approx(estimate(plan, None, 1).seconds)


def test_rows_without_a_cost_are_passed_over(plan: Plan) -> None:
    strange = pd.DataFrame([{"config_id": "x", "train_seconds": 5.0, "device": "cpu", "precision": "float32"}])
    mixed = pd.concat([strange, rows_of(plan, 3.0)], ignore_index=True)
    assert "from 20 earlier runs" in estimate(plan, mixed, 1).text
    assert estimate(plan, strange, 1).rough


def test_only_what_is_missing_costs_time(plan: Plan) -> None:
    whole = estimate(plan, None, 1).seconds
    plan.done = {plan.configurations[0].config_id: {0, 1, 2, 3, 4}}
    assert estimate(plan, None, 1).seconds < whole
    assert estimate(plan, None, 1, limit=1).seconds < estimate(plan, None, 1).seconds
    plan.done = {c.config_id: {0, 1, 2, 3, 4} for c in plan.configurations}
    assert (estimate(plan, None, 1).seconds, estimate(plan, None, 1).text) == (0.0, "nothing left to do")


def test_a_single_trial_is_spread_over_the_free_slots(plan: Plan) -> None:
    alone, spread = (estimate(plan, None, slots, limit=1).seconds for slots in (1, 5))
    assert alone - 2 == pytest.approx(5 * (spread - 2))


def test_the_slides_experiment_is_a_night_on_two_cores() -> None:
    grid = make_plan(load_space("vat_grid"), "data")
    assert 4 * 3600 < estimate(grid, None, 2).seconds < 16 * 3600


# ---- on a GPU
ON_GPU = Resources(gpus=0.3333, cpus=5, threads=5, precision="auto")


def test_the_slides_experiment_on_an_h100_is_within_a_factor_of_two_of_what_was_measured() -> None:
    """Packed by 20 runs, two trials at a time: 30 minutes for all (`benchmarks/records/2026-11-26-packed-h100`)."""
    space = load_space("vat_grid", replicates=20)
    alone = Resources(gpus=0.5, cpus=8, pack=20)
    assert 15 * 60 < estimate(make_plan(space, "data"), None, 2, alone).seconds < 60 * 60
    # A part of it was measured: the 14 trials of none and adv_low at K = 10, four at a time, in 67 s.
    small = make_plan(load_space("vat_grid", ["data.mean_bag_size=10"], 20), "data")
    small.configurations = [c for c in small.configurations if c.method in ("none", "adv_low")]
    assert 67 / 2 < estimate(small, None, 4, Resources(gpus=0.25, pack=20)).seconds < 67 * 2


def test_the_slides_experiment_on_an_h200_is_within_a_factor_of_two_of_what_was_measured() -> None:
    """Four trials at a time, in two parts: 2,380 runs in 411 s, most of them without captured steps, and the other
    1,400 in 418 s (`benchmarks/records/2026-11-27-vat-grid-gpu`)."""
    shared = Resources(gpus=0.25, cpus=4, threads=4)
    for first, runs, measured in ((True, 2380, 411), (False, 1400, 418)):
        part = make_plan(load_space("vat_grid", replicates=20), "data")
        part.configurations = [c for c in part.configurations if _first(c.method, c.values["mean_bag_size"]) == first]
        assert part.runs_total == runs
        assert measured / 2 < estimate(part, None, 4, shared).seconds < measured * 2


def _first(method: str, size: int) -> bool:
    """Whether the first part of the record has these runs."""
    return size == 10 or method == "none" or (size == 50 and not method.startswith("all"))


def test_large_stacks_take_less_than_small_ones_and_these_less_than_turns(plan: Plan) -> None:
    def seconds(pack: int | None, grouped: bool = True) -> float:
        plan.configurations = make_plan(load_space("vat_grid", ["data.mean_bag_size=10"]), "data").configurations
        return estimate(plan, None, 3, Resources(gpus=0.3333, pack=pack), grouped=grouped).seconds

    assert seconds(None) < seconds(20) < seconds(2) < seconds(1)
    assert seconds(None) < seconds(None, grouped=False) == pytest.approx(seconds(5))  # a search trains each alone


def test_trials_that_share_a_gpu_add_up_on_it(plan: Plan) -> None:
    plan.configurations = make_plan(load_space("vat_grid", ["data.mean_bag_size=100"]), "data").configurations
    plan.replicates = 20
    one, three, more = (
        estimate(plan, None, slots, Resources(gpus=gpus)).seconds for slots, gpus in ((1, 1), (3, 0.3333), (12, 0.3333))
    )
    assert one / 2 < three < one  # what the processor does is hidden, the GPU's work is not
    assert more == pytest.approx(three / 4, rel=0.1)  # four GPUs


def test_earlier_runs_on_a_gpu_set_its_speed(plan: Plan) -> None:
    plan.configurations = make_plan(load_space("vat_grid", ["data.mean_bag_size=50"]), "data").configurations
    guess = estimate(plan, None, 3, ON_GPU)
    records = []
    for c in plan.configurations:
        records += [{**c.values, "config_id": c.config_id, "replicate": r, "stage": "teacher", "device": "cuda",
                     "precision": "bfloat16", "steps_run": 2500, "train_seconds": 3.0} for r in range(5)]  # fmt: skip
    slow = estimate(plan, pd.DataFrame(records), 3, ON_GPU)
    assert "from 315 earlier runs" in slow.text and not slow.rough
    # Each of 315 runs took 3 s of one of three places.
    assert slow.seconds == pytest.approx(315 * 3.0 / 3, rel=0.5) and slow.seconds > 2 * guess.seconds


def test_earlier_rows_are_read_from_all_studies_each_run_once(plan: Plan, tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "runs")
    assert earlier_rows(storage) is None
    for name in ("first", "second"):  # the second reuses the runs of the first
        folder = StudyFolder(storage, name)
        folder.write(TEXT, {}, plan.entries())
        for row in rows_of(plan, 2.0).to_dict("records"):
            kept = {
                "status": "done",
                "train_seconds": row["train_seconds"],
                "device": "cpu",
                "precision": "float32",
                "steps_run": 100,
            }
            folder.ledger.commit(row["config_id"], row["replicate"], kept, {})
        folder.compact()
    storage.put("studies/damaged/rows.parquet", b"not a table")
    rows = earlier_rows(storage)
    assert rows is not None
    assert len(rows) == plan.runs_total
    assert "from 20 earlier runs" in estimate(plan, rows, 1).text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under 1 s"), (45.4, "45 s"), (59.7, "1 min"), (190, "3 min"), (3590, "1 h"), (26400, "7 h 20 min"),
     (86399, "1 d"), (3 * 86400 + 4 * 3600, "3 d 4 h"), (float("inf"), "unknown")],
)  # fmt: skip
def test_times_are_written_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


def test_a_plan_for_a_cluster_says_nothing_of_this_machine(tmp_path, capsys):
    def last_line(**options):
        show_plan(prepare_study(RunOptions("smoke", root=str(tmp_path / "runs"), **options)))
        said = capsys.readouterr().out.replace("\n      ", " ")  # a line that was too wide for the screen
        return said.splitlines()[-1]

    assert re.match(r"  \d+ trials? at a time: ", last_line())
    assert last_line(address="10.0.0.1:6379").startswith("  as many trials at a time as the cluster holds; one after")
    assert last_line(address="auto", max_concurrent=7).startswith("  7 trials at a time: ")


def test_a_plan_says_what_packing_does_on_its_device(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    on_cpu = prepare_study(RunOptions("smoke", root=str(tmp_path), overrides=("resources.pack=4",)))
    show_plan(on_cpu)
    assert "warning: resources.pack: 4 is slow on a CPU" in capsys.readouterr().out
    on_gpu = prepare_study(RunOptions("smoke", root=str(tmp_path), overrides=("resources.pack=4", "resources.gpus=1")))
    show_plan(on_gpu)
    said = " ".join(capsys.readouterr().out.split())
    assert "resources.pack" not in said


def test_a_gpu_is_filled_before_a_configuration_is_split(plan: Plan) -> None:
    """4,096 instances fill it: 102 runs of steps of 40. Each of two GPUs has a trial, and a pack that is asked for,
    students and a processor are as they were."""
    shared, trials = Resources(gpus=0.25, cpus=4), plan.trials()[:1]

    def pieces(resources: Resources, slots: int) -> list[int]:
        gpus = gpus_of(resources, slots)
        found = split_for_slots(trials, slots, lambda c: runs_of_full_stack(c, resources), gpus)
        return [len(replicates) for _, replicates in found]

    assert runs_of_full_stack(trials[0].configuration, shared) == 102
    assert pieces(shared, 4) == [5]
    assert pieces(shared, 8) == [3, 2]  # two GPUs
    assert pieces(Resources(gpus=0.6), 2) == [3, 2]
    assert [gpus_of(Resources(gpus=gpus), 4) for gpus in (0.25, 0.4, 0.6, 1, 2, 0)] == [1, 2, 4, 4, 4, 1]
    assert pieces(Resources(gpus=0.25, pack=2), 4) == pieces(Resources(), 4) == [2, 2, 1]
    with_others = make_plan(load_space("vat_robust_confirm"), "data").configurations[-1]
    assert with_others.values["unlabelled_bags"] == 1000
    assert runs_of_full_stack(with_others, shared) == 51
    student = make_plan(load_space("distill_quick"), "data").configurations[-1]
    assert runs_of_full_stack(student, shared) == 1
