"""How many labels stand behind the rows of a study, and what tables and figures say of it."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from make_study import make_study

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.labels_used import labels_used_sentences
from analysis.rows.labels_used import validation_labels_are_used, with_labels_used

ROOT = Path(__file__).parents[2] / "study" / "version_1_root" / "root.zip"
LENGTH = {"steps": 600, "eval_every": 50}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version-1")
    with zipfile.ZipFile(ROOT) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("study", ["teachers", "students", "search"])
def test_rows_of_version_1_say_it_by_their_keys(root, study):
    rows = analysis.load(study, root)
    done = rows[rows["status"] == "done"]
    assert len(done) and (done["labels_used"] == done["num_bags"] + done["val_bags"]).all()
    assert rows.loc[rows["status"] != "done", "labels_used"].isna().all()


def made(**columns):
    base = {"status": "done", "stage": "teacher", "config_id": "a", "dataset": "mnist", "select": "auc", **LENGTH}
    count = max(len(v) for v in columns.values())
    return pd.DataFrame({key: [value] * count for key, value in base.items()} | columns)


def test_what_rows_do_not_tell_stays_empty():
    drawn = with_labels_used(made(num_bags=[50, 50, 50], val_bags=[25, 25, 25], status=["done", "failed", "done"]))
    assert np.array_equal(drawn["labels_used"], [75, np.nan, 75], equal_nan=True)
    folds = {"fold": [0, 1], "train_bags": [60, 61], "num_bags": [np.nan, np.nan], "dataset": ["colon", "colon"]}
    assert with_labels_used(made(**folds))["labels_used"].isna().all()  # nobody wrote how many bags validated
    last = with_labels_used(made(**folds, select=["last", "last"]))
    assert last["labels_used"].tolist() == [60, 61]
    foreign = with_labels_used(pd.DataFrame({"status": ["done"], "stage": ["teacher"], "config_id": ["b"]}))
    assert foreign["labels_used"].isna().all()


def test_what_rows_say_is_not_made_up_again():
    said = with_labels_used(
        made(num_bags=[50, 50], val_bags=[25, 25], labels_used=[64.0, np.nan], config_id=["a", "b"])
    )
    assert said["labels_used"].tolist() == [64, 75]


@pytest.fixture
def rows(tmp_path):
    found = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10,)).rows()
    return found.assign(labels_used=found["num_bags"] + found["val_bags"])


def test_rows_that_do_not_say_it_are_said_not_to(rows):
    keys = [name for name in ("select", "val_bags", "labels_used") if name in rows]
    said = " ".join(analysis.table(rows.drop(columns=keys)).text().split())
    assert "Whether labels of validation bags were used besides, these rows do not say." in said
    assert "Labels used" not in said


def test_tables_say_what_n_does_not_count(rows):
    said = " ".join(analysis.table(rows).text().split())
    assert "n: training bags" in said
    assert "Labels used in all, of training bags (n) and validation bags: 75 at n = 50, 150 at n = 100." in said
    some = rows.assign(labels_used=rows["labels_used"].mask(rows["method"] == "vat", rows["num_bags"]))
    said = " ".join(analysis.table(some).text().split())
    assert "validation bags: 50 to 75 at n = 50, 100 to 150 at n = 100." in said
    alone = " ".join(analysis.table(rows.assign(labels_used=rows["num_bags"])).text().split())
    assert "Labels used in all: those of training bags (n) alone." in alone
    compared = analysis.compare(rows)
    assert "Labels used in all, of training bags (n) and validation bags" in " ".join(compared.text().split())


def test_only_what_is_known_and_shown_is_said(rows):
    unknown = analysis.table(rows.assign(labels_used=np.nan)).text()
    assert "abels used" not in unknown
    (said,) = labels_used_sentences(arrange(rows[rows["num_bags"] == 50], None, "method", "lambda_adv", None))
    assert said == "Labels of bags that a run used in all: 75."
    half = rows.assign(labels_used=rows["labels_used"].where(rows["num_bags"] == 50))
    assert "validation bags: 75 at n = 50." in " ".join(analysis.table(half).text().split())


def test_folds_say_how_many_labels_they_used(rows):
    """Their rows have no number of training bags, or it is that of a fold."""
    used = rows.assign(labels_used=np.where(rows["replicate"] % 2, 71, 72)).drop(columns=["num_bags"])
    layout = arrange(used.assign(fold=used["replicate"]), None, "method", "mean_bag_size", None)
    assert labels_used_sentences(layout) == ["Labels of bags that a run used in all: 71 to 72."]


def test_whether_validation_labels_are_used_is_said_where_rows_tell(rows):
    assert validation_labels_are_used(rows) is True
    assert validation_labels_are_used(rows.assign(labels_used=rows["num_bags"])) is False
    assert validation_labels_are_used(rows.drop(columns=["num_bags"])) is None
    given = rows.drop(columns=["num_bags"]).assign(train_bags=64.0, labels_used=72.0)
    assert validation_labels_are_used(given) is True
    waiting = given.assign(num_bags=None)  # all bags, and runs that are not there yet
    waiting.loc[waiting.index[0], ["train_bags", "labels_used"]] = np.nan
    assert validation_labels_are_used(waiting) is True
    assert validation_labels_are_used(waiting.assign(labels_used=np.nan)) is None


def test_a_renamed_key_keeps_its_name(rows):
    rows.attrs["labels"] = {"num_bags": "slides"}
    said = " ".join(analysis.table(rows).text().split())
    assert "Labels used in all, of training bags (slides) and validation bags: 75 at slides = 50" in said


@pytest.mark.parametrize("kind", ["curves", "heatmap"])
def test_figures_say_it_in_their_note(tmp_path, kind):
    found = make_study(tmp_path, num_bags=(50, 100), bag_sizes=(10, 50)).rows()
    alone = analysis.figure(found.assign(labels_used=found["num_bags"]), kind)
    figure = analysis.figure(found.assign(labels_used=found["num_bags"] + found["val_bags"]), kind)
    for one, said in ((figure, True), (alone, False)):
        labels = {text for axis in one.axes for text in (axis.get_xlabel(), axis.get_ylabel())}
        assert ("training bags n (+ validation labels)" in {" ".join(t.split()) for t in labels}) == said
    said = " ".join(" ".join(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text"))).split())
    assert "labels used in all, of training bags (n) and validation bags: 75 at n = 50, 150 at n = 100" in said


def test_the_number_of_labels_is_no_setting_that_tells_rows_apart(rows):
    uneven = rows.assign(labels_used=rows["labels_used"] + rows["replicate"])
    assert [row.text for row in arrange(uneven).rows] == [row.text for row in arrange(rows).rows]


def test_captions_say_how_many_unlabelled_bags_there_were(rows):
    def said(rows):
        return " ".join(analysis.table(rows).text().split())

    assert "nlabelled" not in said(rows.assign(unlabelled_bags=0)) and "nlabelled" not in said(rows)
    of_vat = rows.assign(unlabelled_bags=np.where(rows["method"] == "vat", 1000, 0))
    assert "Unlabelled training bags beside the labelled ones: m = 1000 (vat)." in said(of_vat)
    everywhere = rows.assign(unlabelled_bags=200)
    assert "beside the labelled ones: m = 200 (none, vat)." in said(everywhere)
