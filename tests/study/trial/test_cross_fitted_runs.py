"""Cross-fitted students as runs: planned, trained, committed, resumed; labelled by stored teachers of other bags."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from few_digits import digits
from make_space import load_text

from analysis import load
from d2l_study.learning import metrics
from d2l_study.learning.instance_visits import teacher_visits
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.learning.student import SoftLabels, fit_to_soft_labels
from d2l_study.learning.training_parts import training_parts
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.run_files import CURVE
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.plan.plan import Plan
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.stages import stored_teacher
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

SPACE = """
description: cross-fitted
data: {num_bags: 12, mean_bag_size: 4, val_bags: 8, test_bags: 10}
teacher: {steps: 6, eval_every: 3, feature_width: 16}
student: {steps: 4, eval_every: 2, feature_width: 16, cross_fit: 3}
methods:
  one: {student: {temperature: 1}}
  two: {student: {teachers: 2, start: teacher}}
  seen: {student: {cross_fit: 0}}
references: [matched, pooled, no_teacher]
replicates: 2
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The configurations of the space, all trained, and their folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cross")
    space = load_text(folder, SPACE.replace("test_bags: 10", f"test_bags: 10, root: {digits(200)}, verify: false"))
    pool = configurations(space, "?")[0].sections["data"].load_pool()
    planned = configurations(space, pool.checksum)
    for c in planned:
        assert run_trial(request_of(c, folder)) == {0: "done", 1: "done"}
    return planned, folder


def request_of(c, folder, **more):
    return TrialRequest(**{
        "root": str(folder / "runs"), "study": "s", "config_id": c.config_id, "label": c.label, "stage": c.stage,
        "sections": {name: section.to_dict() for name, section in c.sections.items()}, "replicates": (0, 1),
        "base_seed": 1, "data_checksum": c.data_checksum, "resources": Resources().to_dict(),
        "keep_weights": "all" if c.teaches else "none", "code_version": "test", "teachers": c.teachers, **more,
    })  # fmt: skip


def ledger_of(folder):
    return Ledger(open_storage(str(folder / "runs")))


def of(planned, stage, **values):
    return [c for c in planned if c.stage == stage and all(c.values.get(k) == v for k, v in values.items())]


def student(planned, method):
    (found,) = (c for c in planned if c.student_method == method)
    return found


def test_students_share_the_part_teachers_of_a_member(trained):
    planned, _ = trained
    assert len(of(planned, "teacher")) == 2 and len(of(planned, "part_teacher")) == 2 * 3
    one, two, seen = (student(planned, name) for name in ("one", "two", "seen"))
    first, second = (of(planned, "teacher", member=m)[0].config_id for m in (0, 1))
    parts = {m: tuple(c.config_id for c in of(planned, "part_teacher", member=m)) for m in (0, 1)}
    assert seen.teachers == (first,)
    assert one.teachers == (first, *parts[0]) and two.teachers == (first, second, *parts[0], *parts[1])
    for c in of(planned, "part_teacher"):
        (whole,) = of(planned, "teacher", member=c.values["member"])
        assert c.teaches and c.sections["teacher"] == whole.sections["teacher"] and not c.teachers
        assert c.method == "part_teacher of teacher" and f"part={c.values['part']}" in c.label
    assert [c.values["part"] for c in of(planned, "part_teacher", member=0)] == [0, 1, 2]
    assert len({c.label for c in of(planned, "part_teacher")}) == 6
    assert [c.stage for c in planned] == sorted(
        (c.stage for c in planned), key=["teacher", "part_teacher", "student", "matched", "pooled", "no_teacher"].index
    )  # fmt: skip


def test_cross_fitting_changes_no_other_id(trained, tmp_path):
    planned, _ = trained
    plain = load_text(tmp_path, SPACE.replace(", cross_fit: 3", "").replace("  seen: {student: {cross_fit: 0}}\n", ""))
    before = {(c.stage, c.config_id) for c in configurations(plain, planned[0].data_checksum)}
    kept = {(c.stage, c.config_id) for c in planned if c.stage != "part_teacher"}
    changed = {stage for stage, _ in before ^ kept}
    assert changed == {"student"} and not any(stage == "part_teacher" for stage, _ in before)


def test_a_student_without_soft_labels_has_no_part_teachers(tmp_path):
    space = load_text(tmp_path, SPACE.replace("cross_fit: 3", "cross_fit: 3, lambda_distill: 0, alpha: 1")
                      .replace("  two: {student: {teachers: 2, start: teacher}}\n", "")
                      .replace("  seen: {student: {cross_fit: 0}}\n", "")
                      .replace("temperature: 1", "dropout: 0.1"))  # fmt: skip
    assert not of(configurations(space, "?"), "part_teacher")


def test_rows_of_part_teachers_say_what_they_saw(trained):
    planned, folder = trained
    ledger = ledger_of(folder)
    for c in of(planned, "part_teacher", member=1):
        data, config = c.sections["data"], c.sections["teacher"]
        replicate = data.replicate(data.load_pool(), 1, 1)
        row = ledger.row(c.config_id, 1)
        kept = training_parts(replicate, 3) != c.values["part"]
        own = dataclasses.replace(replicate, train=replicate.train.subset(np.flatnonzero(kept)),
                                  streams=replicate.streams.on(f"part{c.values['part']}"))  # fmt: skip
        assert row["instance_visits"] == teacher_visits(config, own, config.steps)
        assert row["labels_used"] == kept.sum() + 8 and ledger.has_weights(c.config_id, 1)
    rows = {c.student_method: ledger.row(c.config_id, 0) for c in of(planned, "student")}
    assert rows["one"]["labels_used"] == rows["seen"]["labels_used"] == 12 + 8
    assert rows["one"]["instance_visits"] == rows["seen"]["instance_visits"]
    (matched,) = of(planned, "matched")
    assert matched.sections["teacher"].steps == 6 + 4 * 4  # teacher and student alone


@pytest.mark.parametrize("method", ["one", "two"])
def test_a_student_learned_the_labels_of_stored_teachers_that_have_not_seen_the_bag(trained, method):
    """The student trained again from soft labels that are put together here, bag by bag, is the committed one."""
    planned, folder = trained
    c, ledger, compute = student(planned, method), ledger_of(folder), Compute()
    data, config = c.sections["data"], c.sections["student"]
    for number in (0, 1):
        replicate = data.replicate(data.load_pool(), number, 1)
        part_of, normalise = training_parts(replicate, 3), Normalise.of(replicate, compute)

        def says(config_id, bags, replicate=replicate, normalise=normalise):
            stored = stored_teacher(ledger, config_id, replicate.number)
            (logit,) = predict_bags(stored.model, stored.params, replicate.pool, [bags.singles()], normalise, compute)
            return metrics.probability(logit / config.temperature)

        train, val = [], []
        for member in range(config.teachers):
            labellers = {one.values["part"]: one.config_id for one in of(planned, "part_teacher", member=member)}
            bags = [says(labellers[part], replicate.train.subset([bag])) for bag, part in enumerate(part_of)]
            train.append(np.concatenate(bags))
            val.append(says(c.teachers[member], replicate.val))
        start = stored_teacher(ledger, c.teachers[0], number).params if config.start == "teacher" else None
        labels = SoftLabels(np.mean(train, axis=0), np.mean(val, axis=0), start)
        (again,) = fit_to_soft_labels(config, [replicate], [labels])
        curve = json.loads(ledger.read_file(c.config_id, number, CURVE))
        for found, expected in zip(curve, again.curve, strict=True):
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("place", "other"), [(1, "whole"), (1, "second"), (0, "part")])
def test_a_teacher_that_has_seen_the_part_is_refused(trained, place, other):
    """The request of a student with one of its teachers exchanged."""
    planned, folder = trained
    c = student(planned, "one")
    named = {"whole": c.teachers[0], "second": c.teachers[2], "part": c.teachers[1]}[other]
    teachers = [*c.teachers]
    teachers[place] = named
    request = request_of(c, folder, config_id="cd" * 10, teachers=tuple(teachers), study=f"bad-{other}")
    assert run_trial(request) == {0: "failed", 1: "failed"}
    failure = StudyFolder(open_storage(request.root), request.study).failure(request.config_id, 0)
    wanted = "all training bags" if other == "part" else "all but part 0 of 3"
    assert "left out; expected one that was trained on " + wanted in failure["cause"]


def test_a_study_killed_between_part_teachers_goes_on_and_trains_none_again(trained, tmp_path):
    """Half of the runs of the second part teacher are there, and a checkpoint in the middle of a third one."""
    planned, folder = trained
    wanted = [
        c for c in planned if c.config_id in (*student(planned, "one").teachers, student(planned, "one").config_id)
    ]
    ledger = ledger_of(tmp_path)
    for c, replicates in ((wanted[0], (0, 1)), (wanted[1], (0, 1)), (wanted[2], (0,))):
        run_trial(request_of(c, tmp_path, replicates=replicates))
    third = request_of(wanted[3], tmp_path, resources=Resources(checkpoint_every=3).to_dict())

    class Killed(BaseException):
        pass

    def stop(step, values):
        raise Killed

    with pytest.raises(Killed):
        run_trial(third, stop)
    before = {c.config_id: ledger.read(c.config_id, 0)["attempt"] for c in wanted[:3]}
    for c in wanted:
        assert run_trial(request_of(c, tmp_path)) == {0: "done", 1: "done"}
    assert before == {c.config_id: ledger.read(c.config_id, 0)["attempt"] for c in wanted[:3]}
    undisturbed = ledger_of(folder)
    timed = {"train_seconds", "eval_seconds", "committed_at", "host"}
    for c in wanted:
        for r in (0, 1):
            a, b = (one.row(c.config_id, r) for one in (ledger, undisturbed))
            assert {k: v for k, v in a.items() if k not in timed} == pytest.approx(
                {k: v for k, v in b.items() if k not in timed}, nan_ok=True
            )


def test_the_study_is_compared_with_the_teacher_of_all_bags_alone(trained):
    from analysis.cells.arrange import arrange
    from analysis.cells.differences import TO_TEACHER, differences
    from analysis.cells.model_selection import ranked_by_validation
    from d2l_study.errors import UserError
    from d2l_study.study.ledger.best_weights import best_of_arms

    planned, folder = trained
    study = StudyFolder(open_storage(str(folder / "runs")), "s")
    study.write_plan(Plan(planned, 2).entries())
    rows = load("s", folder / "runs")
    assert (rows["stage"] == "part_teacher").sum() == 6 * 2
    layout = arrange(rows, "instance_auc")
    shown = {cell.origin.config_id for cell in layout.cells.values()}
    assert shown == {c.config_id for c in planned} - {c.config_id for c in of(planned, "part_teacher")}
    assert layout.notes[0].startswith("6 part teachers, which label bags for cross-fitted students, are left out; ")
    (panel,) = layout.panels
    one = next(d for d in differences(layout, panel) if d.kind == TO_TEACHER and "one" in d.text)
    own = rows.set_index(["config_id", "replicate"])["instance_auc"]
    c = student(planned, "one")
    expected = own[c.config_id] - own[of(planned, "teacher", member=0)[0].config_id]
    (interval,) = one.by_column.values()
    assert interval.mean == pytest.approx(expected.mean()) and interval.count == 2
    assert "part_teacher" not in set(ranked_by_validation(rows)["stage"])
    assert not any("part_teacher" in arm for arm in best_of_arms(study, rows.to_dict("records")))
    with pytest.raises(UserError, match="part teachers alone"):
        arrange(rows[rows["stage"] == "part_teacher"])
