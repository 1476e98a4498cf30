"""Which stored model a name means, and what is said where it means none."""

import pytest

from d2l_study.cli import main
from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.learning import TeacherConfig
from d2l_study.study.ledger import records
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.page import Page
from d2l_study.study.mlflow.store import StudyRuns
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.model_record import record_of_run
from d2l_study.study.trial.stored_models import find_model
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

ONE, OTHER, TWIN, BARE = "ab12" + "0" * 16, "cd34" + "0" * 16, "cd34" + "0" * 8 + "f" * 8, "ef56" + "0" * 16


@pytest.fixture(autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two trained replicates of one configuration; a third one, two more configurations and one without weights are
    committed from their content."""
    folder = tmp_path_factory.mktemp("runs")
    data = MnistBags(num_bags=6, mean_bag_size=2, test_bags=4).resolved()
    teacher = TeacherConfig(steps=4, eval_every=2, feature_width=8)
    request = TrialRequest(
        root=str(folder), study="mine", config_id=ONE, label="none", stage="teacher",
        sections={"data": data.to_dict(), "teacher": teacher.to_dict()}, replicates=(0, 1), base_seed=5,
        data_checksum=data.load_pool().checksum, resources=Resources().to_dict(), keep_weights="all",
        code_version="test",
    )  # fmt: skip
    assert run_trial(request) == {0: "done", 1: "done"}
    study = StudyFolder(LocalStorage(folder), "mine")
    row, resolved = study.ledger.read(ONE, 1)["row"], study.ledger.read_config(ONE)
    weights = {WEIGHTS: study.ledger.read_file(ONE, 1, WEIGHTS)}
    for config, replicate, files in ((ONE, 2, weights), (OTHER, 3, weights), (TWIN, 0, weights), (BARE, 0, {})):
        study.ledger.write_config(config, resolved)
        study.ledger.commit(config, replicate, row, files)
    space = {"name": "vat_quick", "file": "/x/vat_quick.yaml", "overrides": ["data.num_bags=6", "keep_weights=none"],
             "replicates": 3}  # fmt: skip
    study.write("", {"space": space}, [])
    return folder


@pytest.fixture
def root(trained, tmp_path):
    """The runs, to be changed by a test."""
    import shutil

    shutil.copytree(trained, tmp_path / "runs")
    return tmp_path / "runs"


def ledger_of(root):
    return StudyFolder(LocalStorage(root), "mine").ledger


def refusal(*arguments, **keywords):
    with pytest.raises(UserError) as caught:
        find_model(*arguments, **keywords)
    return str(caught.value)


def set_validation(root, config, values):
    """Give replicates other validation figures than those they had."""
    for replicate, value in values.items():
        path = ledger_of(root).storage.path(f"{ledger_of(root).run_key(config, replicate)}/commit.json")
        record = records.decode(path.read_bytes())
        record["row"]["val_bag_auc"] = value
        path.write_bytes(records.encode(record))


@pytest.mark.parametrize("run", [ONE, ONE[:10], "ab", "a", "AB12"])
def test_the_head_of_an_id_is_enough(trained, run):
    found = find_model(trained, run)
    assert found.config_id == ONE
    card = found.stored.card
    assert (card.stage, card.study, card.config_id, card.replicate) == ("teacher", "mine", ONE, found.replicate)
    assert card.sections["data"]["num_bags"] == 6 and found.stored.model.shape == (1, 28, 28)


def test_of_several_replicates_the_best_on_validation_is_taken(root):
    set_validation(root, ONE, {0: 0.7, 1: 0.9, 2: float("nan")})
    found = find_model(root, "ab")
    assert found.replicate == 1 and "0.9000" in found.choice and "3" in found.choice
    set_validation(root, ONE, {0: 0.9, 2: None})
    assert find_model(root, "ab").replicate == 0  # of equals the first
    assert find_model(root, "ab", replicate=2).replicate == 2
    ledger_of(root).drop_file(ONE, 0, WEIGHTS)
    assert find_model(root, "ab").replicate == 1
    assert "replicates with weights: 1, 2" in refusal(root, "ab", replicate=0)


def test_what_is_ambiguous_lists_the_candidates(trained):
    message = refusal(trained, "cd3")
    assert "2 trials" in message and OTHER[:10] in message and "teacher, 1 replicate)" in message
    assert OTHER[:14] in message and TWIN[:14] in message  # ten digits do not tell these two apart
    assert find_model(trained, OTHER).config_id == OTHER


def test_what_is_not_there_names_the_nearest(trained, tmp_path):
    assert f"did you mean '{ONE[:10]}'" in refusal(trained, "ab13000000")
    assert "that is a study; expected one of its trials" in refusal(trained, "mine")
    assert "0, 1, 2" in refusal(trained, "ab", replicate=7)
    assert "no results under --root" in refusal(tmp_path / "nowhere", "ab")
    assert not (tmp_path / "nowhere").exists()
    assert "no such trial" in refusal(trained, "")
    assert f"{ONE[:10]} (teacher, 3 replicates)" in refusal(trained, "zzz")


def test_what_another_trial_has_lost_does_not_hide_that_a_name_is_mistyped(root):
    paths = {one: ledger_of(root).storage.path(f"{Ledger.config_key(one)}/config.json") for one in (ONE, OTHER)}
    paths[ONE].write_text("{xx")
    paths[OTHER].unlink()
    message = refusal(root, "zzz")
    assert "no such trial" in message and f"{ONE[:10]} (config.json cannot be read, 3 replicates)" in message
    assert "(config.json lost, 1 replicate)" in message and "(teacher, 1 replicate)" in message


def test_a_lost_configuration_is_named_with_the_command_that_writes_it(root):
    for one in (OTHER, BARE):
        ledger_of(root).storage.delete(f"{Ledger.config_key(one)}/config.json")
    said = "config.json: lost, so it is not known what trial"
    with pytest.raises(UserError, match=said):
        record_of_run(ledger_of(root), OTHER, 3)
    message = refusal(root, BARE)
    assert said in message and "the `run` command of its study writes it again" in message


def test_the_command_for_missing_weights_is_named_where_the_study_is_damaged(root):
    for path in (root / "studies" / "mine").rglob("resolved.json"):
        path.write_text("{xx")
    assert refusal(root, "ef").endswith(f"run --space SPACE --study mine --set keep_weights=all --root {root}")


def test_a_study_names_its_trials(root):
    entry = {"config_id": ONE, "method": "vat", "varied": ["lambda_adv"], "values": {"lambda_adv": 0.5, "steps": 3}}
    other = {**entry, "config_id": OTHER, "values": {"lambda_adv": 1.0, "steps": 3}}
    plan = [{**one, "stage": "teacher", "replicates": [0]} for one in (entry, other)]
    StudyFolder(LocalStorage(root), "mine").write_plan(plan)
    said = f"expected one of its trials: {ONE[:10]} (vat lambda_adv=0.5) and {OTHER[:10]} (vat lambda_adv=1)"
    assert said in refusal(root, "mine").replace(", ", " and ")


def test_weights_that_were_not_kept_say_how_to_get_them(trained):
    message = refusal(trained, "ef")
    assert "keep_weights: best" in message and "`all`" in message
    assert f"trial --id {BARE[:10]} --replicate 0 --weights --root {trained}" in message
    command = message.splitlines()[-1].split()
    assert command[:5] == ["d2l", "run", "--space", "vat_quick", "--study"]
    assert command[5:] == ["mine", "--replicates", "3", "--set", "data.num_bags=6", "keep_weights=all",
                           "--root", str(trained)]  # fmt: skip


def test_the_command_that_is_named_makes_the_weights(root):
    ledger = ledger_of(root)
    areas = [ledger.row(ONE, r).get("val_bag_auc", 0.0) for r in (0, 1)]
    before, wanted = [ledger.row(ONE, r) for r in (0, 1)], areas.index(max(areas))
    for r in (0, 1, 2):
        ledger.drop_file(ONE, r, WEIGHTS)
    command = next(line for line in refusal(root, "ab").splitlines() if " trial " in line).split()
    assert main(command[1:]) == 0
    found = find_model(root, "ab")
    assert found.replicate == wanted and ledger_of(root).row(ONE, wanted)["val_bag_auc"] == areas[wanted]
    assert ledger_of(root).row(ONE, 1 - wanted) == before[1 - wanted]


def test_a_run_that_failed_says_why_it_left_no_model(root):
    path = ledger_of(root).storage.path(f"{ledger_of(root).run_key(BARE, 0)}/commit.json")
    record = records.decode(path.read_bytes())
    record["row"] |= {"status": "failed", "cause": "the training loss became nan"}
    path.write_bytes(records.encode(record))
    assert "the training loss became nan" in refusal(root, "ef", replicate=0)


def test_an_attention_row_leads_to_its_teacher(root):
    ledger = ledger_of(root)
    ledger.write_config("77" * 10, {"stage": "attention", "teachers": [ONE]})
    ledger.commit("77" * 10, 0, {"status": "done"}, {})
    assert f"label with its teacher {ONE[:10]}" in refusal(root, "77")


def test_weights_that_are_not_what_was_committed_are_refused(root):
    ledger = ledger_of(root)
    path = ledger.storage.path(ledger.read(OTHER, 3)["files"][WEIGHTS]["key"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # one bit of one weight: still a valid file
    path.write_bytes(data)
    assert str(path) in (message := refusal(root, OTHER)) and "damaged" in message


def test_an_mlflow_run_leads_to_its_trial(trained, tmp_path, monkeypatch):
    # As in a bucket, where no folder exists.
    monkeypatch.setattr(LocalStorage, "exists", lambda storage, key: storage.path(key).is_file())
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    absent = refusal(trained, "0" * 32, tracking_uri=uri)
    assert "no MLflow store" in absent and not (tmp_path / "mlflow.db").exists()
    runs = StudyRuns(uri, "mine")
    runs.open()
    runs.write("", Page("mine"))
    runs.write(ONE, Page("none", tags={"d2l.trial_id": ONE[:10]}))
    runs.write("99" * 10, Page("elsewhere"))
    ids = {key: run.run_id for key, run in runs.stored.items()}
    assert find_model(trained, ids[ONE], tracking_uri=uri).config_id == ONE
    assert ONE[:10] in refusal(trained, ids[""], tracking_uri=uri)
    assert "not under --root" in refusal(trained, ids["99" * 10], tracking_uri=uri)
    assert "not in the MLflow store" in refusal(trained, "0" * 32, tracking_uri=uri)


def test_a_tie_on_validation_is_said_to_be_one(root):
    set_validation(root, ONE, {0: 1.0, 1: 1.0, 2: 1.0})
    found = find_model(root, ONE[:4])
    assert (found.replicate, found.choice) == (0, "of 3 that tie on validation (bag AUC 1.0000), the first")
    set_validation(root, ONE, {0: 0.5})
    found = find_model(root, ONE[:4])
    assert found.replicate == 1
    assert found.choice == "of 3 the first of 2 that tie as the best on validation (bag AUC 1.0000)"
    set_validation(root, ONE, {0: None, 1: None, 2: None})
    assert find_model(root, ONE[:4]).choice == "the first of 3, none of which has a validation bag AUC"
