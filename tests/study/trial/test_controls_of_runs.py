"""The controls of a student as runs: trained, committed, with the visits of their training; packed alike."""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
import torch
from make_space import load_text

from d2l_study.inference.model_file import from_bytes
from d2l_study.learning import fit_student, packing, teacher_targets
from d2l_study.learning.instance_visits import teacher_visits
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.run_files import PREDICTIONS, WEIGHTS
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.space.keys import WITHOUT_WEIGHTS
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.stages import stored_teacher
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

SPACE = """
description: controls
data: {dataset: colon_synthetic, images: 12, side: 100, nuclei: 12.0, folds: 3}
teacher: {steps: 8, eval_every: 4, feature_width: 16}
student: {steps: 4, eval_every: 2, feature_width: 16, neighbours: 3, augment: dihedral, start: teacher}
methods: {student: {}}
references: [matched, no_soft_labels, pooled, smoothed, no_teacher]
replicates: 2
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """stage -> its configuration; stage -> its rows, and the ledger, with all stages of the space trained."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("controls")
    space = load_text(folder, SPACE)
    pool = configurations(space, "?")[0].sections["data"].load_pool()
    planned = configurations(space, pool.checksum)
    for c in planned:
        assert run_trial(request_of(c, folder)) == {0: "done", 1: "done"}
    ledger = Ledger(open_storage(str(folder / "runs")))
    found = {c.stage: c for c in planned}
    return found, {stage: [ledger.row(c.config_id, r) for r in (0, 1)] for stage, c in found.items()}, ledger


def request_of(c, folder, **resources):
    return TrialRequest(
        root=str(folder / "runs"), study="s", config_id=c.config_id, label=c.label, stage=c.stage,
        sections={name: section.to_dict() for name, section in c.sections.items()}, replicates=(0, 1), base_seed=1,
        data_checksum=c.data_checksum, resources=Resources(**resources).to_dict(), keep_weights="all",
        code_version="test", teachers=c.teachers,
    )  # fmt: skip


def logits(ledger, c, level, replicate=0):
    frame = pd.read_parquet(io.BytesIO(ledger.read_file(c.config_id, replicate, PREDICTIONS)))
    frame = frame[(frame["split"] == "test") & (frame["level"] == level)]
    return frame["logit"].to_numpy(), frame["bag_index"].to_numpy()


def test_runs_say_what_their_training_saw(trained):
    found, rows, _ = trained
    data = found["teacher"].sections["data"]
    replicate = data.replicate(data.load_pool(), 1, 1)
    for stage in ("teacher", "matched"):
        config = found[stage].sections["teacher"]
        assert rows[stage][1]["instance_visits"] == teacher_visits(config, replicate, config.steps)
    seen = {stage: np.mean([row["instance_visits"] for row in rows[stage]]) for stage in ("teacher", "student")}
    assert found["matched"].sections["teacher"].steps == 8 + 4 * 4
    assert np.mean([row["instance_visits"] for row in rows["matched"]]) == pytest.approx(sum(seen.values()), rel=0.1)
    assert [row["instance_visits"] for row in rows["no_teacher"]] == [row["instance_visits"] for row in rows["student"]]
    assert not any("instance_visits" in row for stage in ("pooled", "smoothed") for row in rows[stage])


def test_no_soft_labels_is_the_student_of_the_same_weights_and_draws_without_them(trained):
    found, rows, ledger = trained
    own, data = found["no_soft_labels"].sections["student"], found["student"].sections["data"]
    student = dataclasses.replace(found["student"].sections["student"], lambda_distill=0, alpha=1, neighbours=0)
    assert own == dataclasses.replace(student, temperature=1)
    replicate = data.replicate(data.load_pool(), 0, 1)
    stored = stored_teacher(ledger, found["teacher"].config_id, 0)
    targets = {0: [teacher_targets(stored.model, stored.params, replicate)]}
    (alone,) = fit_student(own, [replicate], targets)
    assert rows["no_soft_labels"][0]["instance_auc"] == pytest.approx(alone.metrics["instance_auc"], abs=1e-6)
    kept = ledger.read_file(found["no_soft_labels"].config_id, 0, WEIGHTS)
    assert from_bytes(kept, "weights").card.stage == "no_soft_labels"
    seen = [row["instance_visits"] for row in rows["no_soft_labels"]]
    assert seen == [row["instance_visits"] for row in rows["student"]]


def test_pooled_and_smoothed_are_readings_of_the_committed_teacher(trained):
    found, _, ledger = trained
    (teacher, where), (pooled, _) = logits(ledger, found["teacher"], "instance"), logits(ledger, found["pooled"], "bag")
    np.testing.assert_allclose(pooled, pd.Series(teacher).groupby(where, sort=False).max(), rtol=1e-5)
    np.testing.assert_array_equal(logits(ledger, found["pooled"], "instance")[0], teacher)
    smoothed = logits(ledger, found["smoothed"], "instance")[0]
    assert smoothed.std() < teacher.std()
    np.testing.assert_array_equal(*(logits(ledger, found[stage], "bag")[0] for stage in ("smoothed", "teacher")))


def test_what_is_trained_keeps_weights_and_nothing_else_does(trained):
    found, _, ledger = trained
    for stage, c in found.items():
        kept = {r for r in (0, 1) if ledger.has_result(c.config_id, r, with_weights=True)}
        assert kept == (set() if stage in WITHOUT_WEIGHTS else {0, 1})


def test_a_packed_matched_teacher_is_the_one_trained_alone(trained, tmp_path, monkeypatch):
    """Up to rounding, as a teacher's is."""
    found, rows, _ = trained
    matched = found["matched"]
    genuine = packing.packed_or_by_turns

    def packs(config, replicates, compute):
        return dataclasses.replace(genuine(config, replicates, compute), packed=True, pack=2)

    monkeypatch.setattr("d2l_study.learning.teacher.packed_or_by_turns", packs)
    assert run_trial(request_of(matched, tmp_path)) == {0: "done", 1: "done"}
    ledger = Ledger(open_storage(str(tmp_path / "runs")))
    for r in (0, 1):
        row = ledger.row(matched.config_id, r)
        assert row["instance_visits"] == rows["matched"][r]["instance_visits"]
        assert row["val_bag_nll"] == pytest.approx(rows["matched"][r]["val_bag_nll"], rel=1e-3)
