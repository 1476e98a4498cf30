"""`trial`: a trial is run in this process by its id."""

import shutil

import pytest
import torch
from few_digits import digits
from make_study import make_study
from make_trial_request import make_trial_request

from d2l_study import cli
from d2l_study.study.commands import recorded_trial
from d2l_study.study.commands import trial as trial_command
from d2l_study.study.commands.recorded_trial import request_for_record
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.data_checksums import DataChecksums
from d2l_study.study.plan.plan import make_plan
from d2l_study.study.space.load import load_space
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial import trial as trial_module
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.tune.machine import Machines, Node

PLANNED = """
description: a study of which nothing was run yet
data: {num_bags: 6, mean_bag_size: 3, test_bags: 50}
teacher: {steps: 4, eval_every: 2, feature_width: 8, attention_width: 4}
methods:
  none: {}
  vat: {teacher: {lambda_adv: [0.5, 1.0]}}
"""


def test_a_trial_that_is_only_planned_is_run_by_its_id_too(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(PLANNED)
    space = load_space(tmp_path / "s.yaml", ["teacher.epsilon=3"])
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    plan = make_plan(space, DataChecksums(), folder.ledger)
    folder.write(space.text, {"space": space.to_dict()}, plan.entries())
    chosen = plan.configurations[2].config_id
    assert cli.main(["trial", "--id", chosen[:10], "--replicate", "1", "--root", str(tmp_path)]) == 0
    assert "r001: done" in capsys.readouterr().out
    row = folder.ledger.read(chosen, 1)["row"]
    assert row["made_by"] == "s" and [r["status"] for r in folder.rows_of(plan.entries()[2])].count("done") == 1
    assert cli.main(["trial", "--id", "0123456789abcdef", "--root", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no trial of that id" in said and ("did you mean" in said or "; there are " in said), said


@pytest.mark.parametrize("content", [None, "{xx"])
def test_a_configuration_that_is_lost_or_damaged_is_made_again_from_its_study(tmp_path, capsys, content):
    (tmp_path / "s.yaml").write_text(PLANNED)
    space = load_space(tmp_path / "s.yaml")
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    plan = make_plan(space, DataChecksums(), folder.ledger)
    folder.write(space.text, {"space": space.to_dict()}, plan.entries())
    chosen = plan.configurations[0].config_id
    path = folder.storage.path(f"{folder.ledger.config_key(chosen)}/config.json")

    def answer(*words):
        path.unlink() if content is None else path.write_text(content)
        code = cli.main([*words, "--root", str(tmp_path)])
        return code, "".join(capsys.readouterr())

    assert cli.main(["trial", "--id", chosen[:10], "--root", str(tmp_path)]) == 0
    before = path.read_text()
    code, said = answer("reproduce", chosen[:10])
    assert code == 0 and "identical, predictions too" in said and path.read_text() == before
    code, said = answer("trial", "--id", chosen[:10])
    assert code == 0 and "r000: done already" in said and path.read_text() == before
    code, said = answer("trial", "--id", "zz")
    assert code == 2 and "no trial of that id" in said
    shutil.rmtree(tmp_path / "studies")
    path.touch()
    code, said = answer("reproduce", chosen[:10])
    assert code == 2 and f"{path}: {'lost' if content is None else 'damaged'}" in said
    assert "the `run` command of its study writes it again" in said


def test_a_teacher_run_by_its_id_can_teach(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(
        PLANNED.replace("methods:", "student: {steps: 4, eval_every: 2, feature_width: 8}\nmethods:")
        .replace("  none: {}", "  student: {}").replace("  vat: {teacher: {lambda_adv: [0.5, 1.0]}}\n", "")
    )  # fmt: skip
    space = load_space(tmp_path / "s.yaml")
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    plan = make_plan(space, DataChecksums(), folder.ledger)
    folder.write(space.text, {"space": space.to_dict()}, plan.entries())
    teacher, student = plan.configurations
    assert student.teachers == (teacher.config_id,)
    for c in (teacher, student):
        assert cli.main(["trial", "--id", c.config_id, "--replicate", "2", "--root", str(tmp_path)]) == 0
        assert "r002: done" in capsys.readouterr().out
    later = make_plan(space, DataChecksums(), folder.ledger)
    assert [2 in later.missing(c) for c in (teacher, student)] == [False, False]  # nothing is trained again


def test_a_failed_trial_is_run_again_by_its_id(tmp_path, capsys, monkeypatch):
    asked = make_trial_request(tmp_path, replicates=(0,))
    plan_trial(tmp_path, "s", "ab" * 10)

    def broken(data):
        raise ZeroDivisionError("made to fail")

    with monkeypatch.context() as patch:
        patch.setattr(trial_module, "_pool", broken)
        run_trial(asked)
        assert cli.main(["trial", "--id", "abab", "--replicate", "0", "--root", str(tmp_path)]) == 1
        assert "ZeroDivisionError" in capsys.readouterr().out
    assert cli.main(["trial", "--id", "abab", "--replicate", "0", "--root", str(tmp_path)]) == 0
    assert "r000: done" in capsys.readouterr().out
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    assert folder.ledger.has("ab" * 10, 0) and folder.failure("ab" * 10, 0) is None


def plan_trial(root, name, config, space=()):
    """A study whose plan has one configuration, of two replicates."""
    folder = StudyFolder(LocalStorage(root), name)
    entry = {
        "config_id": config,
        "stage": "teacher",
        "method": "none",
        "values": {},
        "varied": [],
        "replicates": [0, 1],
    }
    folder.write("", {"space": dict(space)}, [entry])
    return folder


def planned_root(root):
    """A root that knows a configuration, which the removed study `gone` had planned."""
    ledger = Ledger(LocalStorage(root))
    request = make_trial_request(root)
    ledger.write_config(request.config_id, {
        "stage": request.stage, "sections": request.sections, "base_seed": request.base_seed,
        "data_checksum": request.data_checksum, "teachers": (), "study": "gone",
    })  # fmt: skip
    return ledger, request.config_id


def test_a_trial_by_its_id_computes_as_its_study_was_told_to(tmp_path):
    ledger, config = planned_root(tmp_path)
    plan_trial(tmp_path, "s", config, {"resources": {"precision": "bfloat16", "threads": 3, "cpus": 2.0}})
    request = request_for_record(ledger, config, [0])
    assert (request.resources["precision"], request.resources["threads"]) == ("bfloat16", 3)


def test_a_trial_by_its_id_computes_as_the_runs_of_its_study_did(tmp_path):
    ledger, config = planned_root(tmp_path)
    plan_trial(tmp_path, "s", config, {"resources": {"precision": "auto", "threads": 3}})
    ledger.commit(config, 1, {"status": "done", "made_by": "s", "precision": "bfloat16", "threads": 5}, {})
    request = request_for_record(ledger, config, [0])
    assert (request.resources["precision"], request.resources["threads"]) == ("bfloat16", 5)


@pytest.mark.parametrize(
    ("told", "row", "kind", "pack"),
    [
        ({"gpus": 0.25, "threads": 4, "cpus": 4.0}, {}, "cuda", None),
        ({"gpus": 0.0, "pack": 16}, {}, "cpu", 16),
        ({}, {"device": "cuda"}, "cuda", None),  # as of a cluster, whose GPUs are found once it is joined
        ({"pack": 1}, {"device": "cuda"}, "cuda", 1),
        ({}, {"device": "cpu"}, "cpu", None),
    ],
)
def test_a_trial_by_its_id_computes_on_the_device_of_its_study(tmp_path, monkeypatch, capsys, told, row, kind, pack):
    ledger, config = planned_root(tmp_path)
    plan_trial(tmp_path, "s", config, {"resources": told})
    if row:
        ledger.commit(config, 1, {"status": "done", "made_by": "s", "precision": "float32", "threads": 1, **row}, {})
    given = []

    def run(request, report):
        given.append(Resources(**request.resources))
        return {0: "done"}

    monkeypatch.setattr(trial_command, "run_trial", run)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for gpus in (1, 0):
        monkeypatch.setattr(recorded_trial, "this_machine", lambda gpus=gpus: Machines((Node(8, gpus),)))
        assert cli.main(["trial", "--id", config, "--replicate", "0", "--root", str(tmp_path)]) == 0
    assert [one.kind for one in given] == [kind, "cpu"] and {one.pack for one in given} == {pack}
    said = capsys.readouterr().out
    assert ("computes on the GPU\n" in said) == (kind == "cuda")
    assert ("computes on the processor: no GPU is found here\n" in said) == (kind == "cuda")


def test_a_trial_of_a_removed_study_is_run_for_another_that_has_it(tmp_path, capsys):
    ledger, config = planned_root(tmp_path)
    plan_trial(tmp_path, "another", "cd" * 10)
    folder = plan_trial(tmp_path, "heir", config)
    assert cli.main(["trial", "--id", config, "--replicate", "0", "--root", str(tmp_path)]) == 0
    assert ledger.row(config, 0)["made_by"] == "heir" and folder.storage.list("studies") == ["another", "heir"]


def test_a_trial_that_no_study_has_any_more_is_refused_but_reproduced(tmp_path, capsys):
    run_trial(make_trial_request(tmp_path, replicates=(0,)))
    assert cli.main(["trial", "--id", "abab", "--replicate", "1", "--root", str(tmp_path)]) == 2
    assert "has it in its plan" in capsys.readouterr().err
    assert LocalStorage(tmp_path).list("studies") == []  # `gc` would ask what such a folder names
    assert cli.main(["reproduce", "abab", "--root", str(tmp_path)]) == 0


def test_weights_of_a_run_whose_study_is_gone_are_made_and_a_failure_leaves_no_study(tmp_path, capsys, monkeypatch):
    run_trial(make_trial_request(tmp_path, replicates=(0,)))
    words = ["trial", "--id", "abab", "--replicate", "0", "--weights", "--root", str(tmp_path)]

    def broken(*arguments):
        raise ZeroDivisionError("made to fail")

    with monkeypatch.context() as patch:
        patch.setitem(trial_module.FIT_FUNCTIONS, "teacher", broken)
        cli.main(words)
    assert not LocalStorage(tmp_path).walk("studies")
    assert cli.main(words) == 0 and Ledger(LocalStorage(tmp_path)).has_weights("ab" * 10, 0)


def digits_at(place):
    """The images of MNIST, in a folder of their own."""
    shutil.copytree(digits(), place)
    return place


def study_of(root, space_file, overrides):
    """What `run` writes of a study before it trains."""
    space = load_space(space_file, overrides)
    folder = StudyFolder(LocalStorage(root), "s")
    plan = make_plan(space, DataChecksums(), folder.ledger)
    folder.write(space.text, {"space": space.to_dict()}, plan.entries())
    return folder, plan.configurations[0].config_id


def test_a_trial_finds_data_that_have_moved_where_its_study_had_them_last(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text(PLANNED.replace("test_bags: 50", "test_bags: 20, verify: false"))
    old = digits_at(tmp_path / "old")
    _, config = study_of(tmp_path, tmp_path / "s.yaml", [f"data.root={old}"])
    assert cli.main(["trial", "--id", config, "--replicate", "0", "--root", str(tmp_path)]) == 0
    new = old.rename(tmp_path / "new")
    trial_module._pool.cache_clear()  # as in another process
    assert study_of(tmp_path, tmp_path / "s.yaml", [f"data.root={new}"])[1] == config
    assert cli.main(["reproduce", config, "--root", str(tmp_path)]) == 0
    assert cli.main(["trial", "--id", config, "--replicate", "1", "--root", str(tmp_path)]) == 0


def test_a_lost_configuration_finds_data_that_were_named_from_another_folder(tmp_path, capsys, monkeypatch):
    (tmp_path / "s.yaml").write_text(PLANNED.replace("test_bags: 50", "test_bags: 20, verify: false"))
    digits_at(tmp_path / "here" / "images")
    monkeypatch.chdir(tmp_path / "here")
    folder, config = study_of(tmp_path, tmp_path / "s.yaml", ["data.root=images"])
    monkeypatch.chdir(tmp_path)
    assert cli.main(["trial", "--id", config, "--replicate", "0", "--root", str(tmp_path)]) == 0
    kept = folder.ledger.read_config(config)["sections"]["data"]["root"]
    assert kept == str(tmp_path / "here" / "images")


def test_an_unknown_or_ambiguous_id_is_named(tmp_path, capsys):
    make_study(tmp_path, replicates=1, num_bags=(50, 100), bag_sizes=(10,))
    for identity, words in (("zzz", "no trial of that id"), ("", "no trial of that id")):
        assert cli.main(["trial", "--id", identity, "--root", str(tmp_path)]) == 2
        assert words in capsys.readouterr().err
