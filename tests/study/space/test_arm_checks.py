"""Arms and axes that come out as one configuration are refused, named; so is a --set that changes what arms are."""

import re
from pathlib import Path

import pytest
from make_study import make_study

from d2l_study import cli
from d2l_study.errors import UserError
from d2l_study.study.commands.extend import is_known
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.plan import make_plan
from d2l_study.study.space.arm_checks import check_arms
from d2l_study.study.space.files import list_spaces
from d2l_study.study.space.load import load_space

HEAD = "description: x\ndata: {num_bags: [50, 100]}\n"
STUDENTS = "description: x\ndata: {num_bags: 50}\nstudent: {steps: 50}\nteachers: {none: {}, vat: {teacher: "
OWN = "description: x\ndata: {dataset: manifest, path: own.csv, "
SEARCH = "description: x\nsearch: {trials: 5}\n"
RATE = "teacher: {learning_rate: {low: 1e-4, high: 1e-3}}\n"


@pytest.fixture
def check(tmp_path: Path):
    def load(text, *overrides):
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        space = load_space(path, overrides)
        check_arms(space)
        return space

    return load


SAME = [
    (HEAD + "methods: {none: {}, empty: {}}", "methods.none and methods.empty .*neither sets anything"),
    (HEAD + "methods: {none: {}, zero: {teacher: {lambda_adv: 0}}}", "methods.none and methods.zero"),
    (HEAD + "methods: {none: {}, vat: {teacher: {epsilon: [1, 2, 8]}}}", "epsilon does nothing under lambda_adv 0"),
    (HEAD + "methods: {vat: {teacher: {epsilon: [1, 2]}}}", "methods.vat: teacher.epsilon 1 and 2 are one"),
    (HEAD + "methods: {none: {}, vat: {teacher: {lambda_adv: [0, 1]}}}", r"none and methods.vat .*lambda_adv 0\)"),
    (HEAD + "methods: {vat: {teacher: {lambda_adv: [0, 1], epsilon: [1, 2]}}}", "under lambda_adv 0"),
    (HEAD + "methods: {a: {teacher: {lambda_adv: 1, xi: [0.1, 0.2]}}}", "xi does nothing under direction logit"),
    (HEAD + "teacher: {epsilon: [1, 2]}\nmethods: {none: {}, vat: {teacher: {lambda_adv: 1}}}",
     "methods.none: teacher.epsilon 1 and 2 .*acts in other arms is set there"),
    ("description: x\ndata: {num_bags: 50, val_bags: [null, 25]}\nmethods: {none: {}}", "val_bags is 25 in both"),
    ("description: x\nmethods: {a: {data: {num_bags: [50, 100]}}, b: {data: {num_bags: [100, 200]}}}", "num_bags 100"),
    (STUDENTS + "{epsilon: 3}}}\nmethods: {plain: {}}", "teachers.none and teachers.vat"),
    (STUDENTS + "{lambda_adv: 1}}}\nmethods: {a: {}, wet: {student: {dropout: 0}}}", "methods.a and methods.wet"),
    (STUDENTS + "{lambda_adv: 1}}}\nmethods: {a: {student: {stain_jitter: [0.1, 0.2]}}}", "under augment affine"),
    (SEARCH + "methods: {v: {teacher: {epsilon: {low: 1, high: 3}}}}", "v: its 5 draws are one configuration: epsilon"),
    (SEARCH + RATE + "methods: {none: {}, v: {}}", "methods.none and methods.v"),
    (SEARCH + RATE + "methods: {v: {teacher: {epsilon: {low: 1, high: 3}}}}", "a distribution that does nothing under"),
    (HEAD + "teacher: {steps: 100, eval_every: 100}\nmethods: {a: {teacher: {patience: [0, 3]}}}",
     "patience does nothing under eval_every 100 and steps 100, which make 1 validation"),
    (HEAD + "teacher: {steps: 350, eval_every: 100}\nmethods: {a: {teacher: {patience: [0, 3]}}}",
     "which make 4 validations"),
    (HEAD + "teacher: {select: last}\nmethods: {a: {teacher: {patience: [0, 3]}}}", "does nothing under select last"),
    (HEAD + "methods: {a: {teacher: {steps: 50, eval_every: [50, 100]}}}", "eval_every is 50 in both"),
    (STUDENTS + "{lambda_adv: 1}}}\nmethods: {a: {student: {eval_every: [50, 100]}}}", "eval_every is 50 in both"),
    (STUDENTS + "{lambda_adv: 1}}}\nmethods: {a: {student: {eval_every: 50, patience: [0, 1]}}}", "make 1 validation"),
    (OWN + "cut: grid, patch_size: 28, stride: [null, 28]}\nmethods: {a: {}}", "stride is 28 in both"),
    (OWN + "cut: points, stride: [8, 16]}\nmethods: {a: {}}", "stride does nothing under cut points"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), SAME)
def test_what_comes_out_as_one_configuration_is_refused_by_name(check, text, words):
    with pytest.raises(UserError, match=words) as error:
        check(text)
    assert "mine.yaml: " in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        HEAD + "methods: {none: {}, vat: {teacher: {lambda_adv: 1, epsilon: [1, 2]}}}",
        STUDENTS + "{lambda_adv: 1}}}\nmethods: {a: {}, b: {student: {dropout: 0.1}}}\nreferences: [oracle, attention]",
        HEAD + "teacher: {steps: 350, eval_every: 100}\nmethods: {a: {teacher: {patience: [0, 2]}}}",
        HEAD + "methods: {a: {teacher: {steps: 50, eval_every: [49, 50]}}}",
        OWN + "cut: [points, grid], stride: 8}\nmethods: {a: {}}",
        # draws of a list may meet by chance; those of two arms are the same wherever both ask
        SEARCH + RATE + "methods: {none: {}, v: {teacher: {lambda_adv: {choices: [0, 1]}}}}",
        SEARCH + "methods: {v: {teacher: {lambda_adv: {choices: [0, 1]}}}}",
    ],
)
def test_what_differs_is_accepted(check, text):
    check(text)


def test_every_shipped_space_tells_its_arms_apart():
    for name, _, _ in list_spaces():
        check_arms(load_space(name))


ARMS = "methods: {none: {}, vat: {teacher: {lambda_adv: 1}}, strong: {teacher: {lambda_adv: 3, steps: 9}}}\n"


@pytest.mark.parametrize("common", ["", "teacher: {lambda_adv: 0}\n"])
def test_a_set_that_would_turn_the_plain_arm_into_another_is_refused(check, common):
    said = ("--set teacher.lambda_adv: 'vat', 'strong' set this key and 'none' does not, so it would change 'none' "
            "alone, under the same name; set it in the arm that is meant: methods.vat.teacher.")  # fmt: skip
    with pytest.raises(UserError, match=re.escape(said)):
        check(HEAD + common + ARMS, "lambda_adv=2")
    space = check(HEAD + common + ARMS, "methods.vat.teacher.lambda_adv=2")
    assert space.methods["vat"]["teacher"]["lambda_adv"] == 2


def test_a_set_that_changes_all_arms_or_a_value_that_they_share_is_not(check):
    check(HEAD + ARMS, "teacher.dropout=0.2", "data.num_bags=20")
    assert check(HEAD + "teacher: {steps: 100}\n" + ARMS, "steps=50").sections["teacher"]["steps"] == 50
    with pytest.raises(UserError, match=r"--set student\.dropout: 'b' sets this key and 'a' does not"):
        check(STUDENTS + "{lambda_adv: 1}}}\nmethods: {a: {}, b: {student: {dropout: 0.1}}}", "student.dropout=0.3")
    with pytest.raises(UserError, match=r"teachers\.vat\.teacher\.lambda_adv, teachers\.none"):
        check(STUDENTS + "{lambda_adv: 1}}}\nmethods: {a: {}}", "teacher.lambda_adv=0.3")


def test_plan_refuses_a_new_study_and_goes_on_with_one_that_exists(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twins.yaml").write_text("description: x\nmethods: {none: {}, empty: {}}\n")
    assert cli.main(["plan", "--space", "twins.yaml"]) == 2
    assert "one configuration" in capsys.readouterr().err
    space = load_space("twins.yaml")
    plan = make_plan(space, "wherever")
    folder = StudyFolder(LocalStorage(tmp_path), "twins")
    assert not is_known(folder, plan.entries())
    folder.write(space.text, {"space": space.to_dict()}, plan.entries())
    assert is_known(folder, plan.entries()) and not is_known(folder, [{**plan.entries()[0], "config_id": "other"}])


def test_a_stored_study_of_one_configuration_in_two_arms_is_read(tmp_path):
    folder = make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,))
    twin = [{**folder.plan()[0], "method": "empty"}]
    folder.write("", folder.resolved(), [*folder.plan(), *twin])
    rows = folder.rows()
    assert (rows["method"] == "empty").sum() == 2 and rows["bag_auc"].notna().all()
