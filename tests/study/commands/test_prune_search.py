"""`prune --arm` of a search that learns from its own trials: the arm does not come back, and the others go on."""

import pytest
from few_digits import digits
from whole_root import WholeRoot

from d2l_study.study.commands import prune
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_folder import StudyFolder

VAT = "  vat: {teacher: {mixup: 0.2, batch_bags: 2, lambda_adv: {low: 0.1, high: 3}}}\n"  # of another science version
SPACE = f"""
description: two arms
data: {{num_bags: 6, mean_bag_size: 3, test_bags: 20, root: {digits()}, verify: false}}
teacher: {{steps: 4, eval_every: 2, feature_width: 8, attention_width: 4}}
methods:
  none: {{teacher: {{learning_rate: {{low: 1.0e-4, high: 1.0e-3}}}}}}
{VAT}replicates: 1
search: {{method: tpe, trials: 1}}
"""


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "runs").mkdir()
    whole = WholeRoot(tmp_path, ())
    (tmp_path / "two.yaml").write_text(SPACE)
    assert whole.run("two").code == 0
    return whole


@pytest.mark.slow
def test_what_becomes_of_the_arm_is_said_before_it_is_written(whole, monkeypatch):
    plan = StudyFolder(LocalStorage(whole.root), "two").plan()

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prune, "_write", stopped)
        said = whole.study("prune", "two", "--arm", "vat")
    assert said.code == 130 and "vat cannot come back into this study" in said.out
    assert StudyFolder(LocalStorage(whole.root), "two").plan() == plan


def test_a_search_is_known_where_it_is_lost_how_its_space_was_read(whole):
    (whole.root / "studies" / "two" / "resolved.json").unlink()
    failed = whole.study("prune", "two", "--failed")
    assert failed.code == 2 and "--failed: not of a search, which learns from what failed" in failed.err
    said = whole.study("prune", "two", "--arm", "vat")
    assert said.code == 0 and "a search by tpe learns from its own trials alone: vat cannot come back" in said.out


@pytest.mark.slow
def test_a_search_goes_on_without_the_arm_as_it_is_said(whole):
    said = whole.study("prune", "two", "--arm", "vat")
    assert said.code == 0 and "--extend" not in said.out
    for options in ((), ("--extend",)):
        refused = whole.run("two", *options)
        assert refused.code == 2 and "started with another search" in refused.err
    assert whole.run("two", "--study", "both").code == 0
    (whole.folder / "two.yaml").write_text(SPACE.replace(VAT, "").replace("trials: 1", "trials: 2"))
    assert whole.run("two").code == 0
    document = read_document(StudyFolder(LocalStorage(whole.root), "two"))
    assert [trial["arm"] for trial in document["trials"]] == ["none", "none"]
