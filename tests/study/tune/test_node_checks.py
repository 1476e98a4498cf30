"""What a node is asked before a study, without a cluster; tests/cluster asks real nodes."""

import traceback

import pytest
from make_study import make_study
from make_trial_request import make_trial_request

from d2l_study.errors import StorageError, UserError
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.tune.node_checks import _check_answer, _probe_function
from d2l_study.study.tune.retries import STORAGE, lost_trial
from d2l_study.study.tune.worker import train_in_worker

DATA = {"dataset": "mnist", "num_bags": 6, "mean_bag_size": 3}


def asked(root, mark="m", sections=(DATA,)):
    storage = LocalStorage(root)
    storage.put("studies/.probe", mark.encode())
    return _probe_function()(str(root), "studies/.probe", [dict(section) for section in sections]), storage


def test_a_node_that_has_everything_is_taken(tmp_path):
    answer, storage = asked(tmp_path)
    _check_answer(answer, "10.0.0.1 (h)", storage, "m")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"missing": "ModuleNotFoundError: No module named 'd2l_study'"}, "install it on every node"),
        ({"version": "0.0, science 0"}, "has d2l_study 0.0, science 0; the driver has"),
        ({"mark": "another"}, "does not see it"),
        ({"data": "data.root: '/x' is not a folder"}, "data.root"),
    ],
)
def test_a_node_that_lacks_something_is_named_with_what_to_do(change, words, tmp_path):
    answer, storage = asked(tmp_path)
    with pytest.raises(UserError, match=r"node 10\.0\.0\.1") as told:
        _check_answer({**answer, **change}, "10.0.0.1 (h)", storage, "m")
    assert words in str(told.value)


def test_a_node_that_joined_later_and_does_not_see_the_root_trains_nothing_and_ends_the_study(tmp_path):
    make_study(tmp_path / "driver")
    elsewhere = make_trial_request(tmp_path / "worker").to_dict()
    with pytest.raises(StorageError) as told:
        train_in_worker({"requests": [elsewhere], "pause": 0.0})
    assert not (tmp_path / "worker").exists()
    lost = lost_trial("".join(traceback.format_exception(told.value)))
    assert lost.kind == STORAGE and "does not see it" in lost.cause and "s3://BUCKET/FOLDER" in lost.cause
