"""Two roots whose studies have one name, in one MLflow store: the pages of the first stay as they are."""

import re

import pytest
from mlflow_runs import begin, rows_of, runs_of

from d2l_study.errors import UserError
from d2l_study.study.mlflow.other_studies import check_no_other_study
from d2l_study.study.mlflow.pages import StudyPages
from d2l_study.study.mlflow.removal import delete_study
from d2l_study.study.mlflow.writer import PageWriter

SAID = "a study 'made' of another root is there (1 run); name this one otherwise: --study NAME"


@pytest.fixture
def there(uri):
    """The store, with a study of one configuration, which its driver still trains."""
    pages = StudyPages("made")
    pages.begin_study({}, {}, {})
    begin(pages)
    assert PageWriter(pages, uri, planned=lambda: {"c1"}).flush()
    return uri


def is_as_before(uri):
    parents, children = runs_of(uri)
    return [run.info.status for run in (*parents, *children.pop("c1"))] == ["RUNNING", "RUNNING"] and not children


def test_the_pages_of_another_roots_study_are_not_taken(there):
    pages = StudyPages("made")
    pages.begin_study({}, {}, {})
    begin(pages, "c2")
    pages.finish("c2", rows_of([0.8]), {})
    writer = PageWriter(pages, there, planned=lambda: {"c2"}, known=lambda config: config == "c2")
    assert not writer.flush() and SAID in writer.problems
    assert is_as_before(there)


def test_what_left_the_plan_of_the_same_study_is_deleted(there):
    pages = StudyPages("made")
    pages.begin_study({}, {}, {})
    writer = PageWriter(pages, there, planned=set, known=lambda config: config == "c1")
    assert writer.flush() and writer.deleted == 1


def test_a_new_study_of_that_name_does_not_begin(there):
    with pytest.raises(UserError, match=re.escape(SAID)):
        check_no_other_study(there, "made", lambda config: config == "c2")
    check_no_other_study(there, "made", lambda config: config == "c1")
    check_no_other_study(there, "other", lambda config: False)


def test_what_was_deleted_in_the_store_does_not_come_back_as_another_roots(there):
    """MLflow restores an experiment with its runs, and `gc` may have deleted what the root knew of them."""
    delete_study(there, "made")
    check_no_other_study(there, "made", lambda config: config == "c2")
    pages = StudyPages("made")
    pages.begin_study({}, {}, {})
    begin(pages, "c2")
    writer = PageWriter(pages, there, planned=lambda: {"c2"}, known=lambda config: config == "c2")
    assert writer.flush() and runs_of(there)[1].keys() == {"c2"}


def test_removing_a_study_leaves_another_roots_pages(there):
    assert delete_study(there, "made", lambda config: config == "c2").foreign == 1
    assert is_as_before(there)
    found = delete_study(there, "made", lambda config: config == "c1")
    assert (found.runs, found.foreign) == (2, 0)
