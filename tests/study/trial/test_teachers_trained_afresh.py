"""A study that trained its teachers afresh once: without `--fresh`, too, its students learn from its own."""

import dataclasses

import pytest
from make_trial_request import make_trial_request

from d2l_study.learning.student_config import StudentConfig
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.trial_requests import make_trial_requests
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

TEACHER, OWN = "ab" * 10, "cd" * 10
SMALL = {"keep_weights": "all", "feature_width": 8, "attention_width": 4}


@pytest.fixture
def ledger(tmp_path):
    """Two records of a teacher, with weights that differ: of the study `other`, and beside it of `s` itself. The own
    one is also there under an id of its own."""
    run_trial(dataclasses.replace(make_trial_request(tmp_path, (0,), **SMALL), study="other"))
    own = make_trial_request(tmp_path, (0,), **SMALL, learning_rate=0.05)
    run_trial(dataclasses.replace(own, config_id=OWN))
    ledger = Ledger(LocalStorage(tmp_path))
    files = {WEIGHTS: ledger.read_file(OWN, 0, WEIGHTS)}
    ledger.commit(TEACHER, 0, {**ledger.row(OWN, 0), "made_by": "s"}, files, fresh_of="s")
    return ledger


@pytest.mark.parametrize("stage", ["student", "attention"])
def test_students_and_readings_take_the_teacher_of_their_study(tmp_path, ledger, stage):
    request = make_trial_request(tmp_path, (0,), **SMALL)
    student = StudentConfig(steps=4, eval_every=2, feature_width=8).to_dict()
    sections = {**request.sections, **({"student": student} if stage == "student" else {})}
    request = dataclasses.replace(request, stage=stage, sections=sections)
    found = []
    for number, (teacher, once_fresh) in enumerate(((TEACHER, True), (OWN, False), (TEACHER, False))):
        identity = f"{number}" * 20
        run_trial(dataclasses.replace(request, config_id=identity, teachers=(teacher,), once_fresh=once_fresh))
        row = ledger.row(identity, 0)
        assert row["status"] == "done"
        found.append(row["instance_auc"])
    assert found[0] == found[1] != found[2]


def test_a_teacher_whose_own_weights_are_gone_is_trained_again_beside_the_first(tmp_path, ledger):
    ledger.drop_file(TEACHER, 0, WEIGHTS, "s")
    first = ledger.read(TEACHER, 0)
    assert ledger.has_result(TEACHER, 0, True) and not ledger.has_result(TEACHER, 0, True, fresh_of="s")
    request = dataclasses.replace(make_trial_request(tmp_path, (0,), **SMALL), once_fresh=True)
    run_trial(request)
    assert ledger.read(TEACHER, 0) == first
    record = ledger.read(TEACHER, 0, "s")
    assert record["row"]["made_by"] == "s" and ledger.storage.exists(record["files"][WEIGHTS]["key"])
    run_trial(request)
    assert ledger.read(TEACHER, 0, "s") == record  # not once more


def test_a_study_that_is_run_again_without_fresh_asks_for_its_own_teachers(tmp_path):
    (tmp_path / "s.yaml").write_text(
        "description: x\ndata: {num_bags: 20}\nteacher: {steps: 20, eval_every: 10}\nstudent: {steps: 20}\n"
        "methods: {plain: {}}\nreplicates: 1\n"
    )

    def prepared(fresh=False):
        return prepare_study(RunOptions(str(tmp_path / "s.yaml"), root=str(tmp_path / "runs"), fresh=fresh))

    def asked(study):
        return {(r.fresh, r.made_by, r.fresh_of) for r in make_trial_requests(study, 1, "test")[0]}

    study = prepared()
    assert asked(study) == {(False, None, None)}
    assert asked(prepared(fresh=True)) == {(True, "s", "s")}
    study.folder.write("", {"fresh": True}, study.plan.entries())
    study = prepared()
    assert asked(study) == {(False, None, "s")}
    teacher = study.plan.configurations[0]
    assert teacher.teaches
    row = {"status": "done", "precision": "float32"}
    study.folder.ledger.commit(teacher.config_id, 0, {**row, "made_by": "other"}, {WEIGHTS: b"theirs"})
    assert prepared().plan.done[teacher.config_id] == {0}
    study.folder.ledger.commit(teacher.config_id, 0, {**row, "made_by": "s"}, {}, fresh_of="s")
    assert prepared().plan.done[teacher.config_id] == set()  # its own weights are needed


def test_a_request_of_before_can_be_read(tmp_path):
    request = make_trial_request(tmp_path)
    assert TrialRequest.from_dict(request.to_dict()) == request
    for fresh, owner in ((False, None), (True, "s")):
        values = dataclasses.replace(request, fresh=fresh).to_dict()
        del values["once_fresh"]
        assert TrialRequest.from_dict(values).fresh_of == owner
