"""Splits that users bring: columns, tables, CLAM's files, folds of whole data sets; and what is wrong with them."""

import dataclasses
import hashlib

import feature_files as files
import numpy as np
import pytest

from d2l_study.data import FeatureBags
from d2l_study.data.folds import partition_of
from d2l_study.data.purpose import EVALUATION
from d2l_study.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def slides(tmp_path):
    found = files.cohort(12)
    for slide, _ in found:
        files.clam_pt(tmp_path / "features", slide)
    files.table(tmp_path / "plain.csv", found)
    return found


def table(path, slides, columns, *values):
    """A table of slides with further columns, of each a function of the slide's number."""
    rows = [f"slide_id,label,{columns}"]
    for i, (slide, label) in enumerate(slides):
        rows.append(",".join([slide.name, str(label), *(value(i) for value in values)]))
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def parts(data, pool, number):
    replicate = data.replicate(pool, number, base_seed=1)
    return tuple(bags.number.tolist() for bags in (replicate.train, replicate.val, replicate.test))


def clam(folder, count, test, val):
    """splits_0.csv …: columns of different lengths, an index before them."""
    folder.mkdir()
    for k in range(count):
        lists = {"train": [], "val": [], "test": []}
        for i in range(12):
            lists["test" if test(i, k) else "val" if val(i, k) else "train"].append(f"s{i}")
        lines = [",train,val,test"]
        for row in range(max(map(len, lists.values()))):
            lines.append(",".join([str(row), *(names[row] if row < len(names) else "" for names in lists.values())]))
        (folder / f"splits_{k}.csv").write_text("\n".join(lines) + "\n")
    return str(folder)


def test_a_column_of_parts_or_of_folds(slides, tmp_path):
    data = FeatureBags(path=table(tmp_path / "t.csv", slides, "split", lambda i: ("train", "val", "test")[i // 2 % 3]))
    pool = data.load_pool()
    assert parts(data, pool, 0) == ([0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11])
    data = FeatureBags(path=table(tmp_path / "t.csv", slides, "fold", lambda i: str(i // 2 % 3)))
    pool = data.load_pool()
    assert partition_of(pool, 10) == ("given folds", 3)
    assert parts(data, pool, 1) == ([0, 1, 6, 7], [4, 5, 10, 11], [2, 3, 8, 9])


def test_clams_files_that_test_each_slide_once_are_folds(slides, tmp_path):
    folder = clam(tmp_path / "splits", 6, lambda i, k: i // 2 == k, lambda i, k: i // 2 == (k + 1) % 6)
    data = FeatureBags(path=str(tmp_path / "plain.csv"), splits=folder)
    pool = data.load_pool()
    assert partition_of(pool, 10) == ("given folds", 6)
    assert parts(data, pool, 2) == ([0, 1, 2, 3, 8, 9, 10, 11], [6, 7], [4, 5])
    replicate = data.replicate(pool, 5, base_seed=1)
    assert (replicate.repeat, replicate.fold) == (0, 5)
    with pytest.raises(UserError, match=r"6 replicates are given by the data's own folds or splits; replicate 6"):
        data.replicate(pool, 6, base_seed=1)
    one = FeatureBags(path=str(tmp_path / "plain.csv"), splits=f"{folder}/splits_2.csv")
    assert parts(one, one.load_pool(), 0) == parts(data, pool, 2)


def test_clams_files_list_slides_where_patients_have_the_same_numbers(tmp_path):
    slides = [(dataclasses.replace(slide, name=str(i)), i // 2 % 2) for i, (slide, _) in enumerate(files.cohort(12))]
    for slide, _ in slides:
        files.clam_pt(tmp_path / "features", slide)
    patient = [(i // 2 + 3) % 6 for i in range(12)]  # patient 0 has the slides 6 and 7
    path = table(tmp_path / "t.csv", slides, "patient", lambda i: str(patient[i]))
    (tmp_path / "splits_0.csv").write_text(
        ",train,val,test\n" + "".join(f"{i},{i},{i + 8 if i < 2 else ''},{i + 10 if i < 2 else ''}\n" for i in range(8))
    )
    pool = FeatureBags(path=path, bag="patient", splits=str(tmp_path / "splits_0.csv")).load_pool()
    assert {name: int(part) for name, part in zip(pool.names, pool.part[0], strict=True)} == {
        "3": 0, "4": 0, "5": 0, "0": 0, "1": 1, "2": 2,
    }  # fmt: skip
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,3,1,2\n1,4,,\n2,5,,\n3,0,,\n")  # the same, of patients
    again = FeatureBags(path=path, bag="patient", splits=str(tmp_path / "splits_0.csv")).load_pool()
    assert np.array_equal(again.part, pool.part)


def numbered_alike(tmp_path):
    """A table of six slides 1 … 6 of the patients 2 … 6 and 1, and a part for each of the six numbers."""
    slides = [(dataclasses.replace(slide, name=str(i + 1)), i % 2) for i, (slide, _) in enumerate(files.cohort(6))]
    for slide, _ in slides:
        files.clam_pt(tmp_path / "features", slide)
    path = table(tmp_path / "t.csv", slides, "patient", lambda i: str((i + 1) % 6 + 1))
    return path, dict(zip("123456", ("test", "train", "train", "val", "val", "test"), strict=True))


def parts_by_name(pool):
    return {name: ("train", "val", "test")[part] for name, part in zip(pool.names, pool.part, strict=True)}


def test_a_table_of_splits_is_of_what_its_header_names_where_slides_and_patients_are_numbered_alike(tmp_path):
    path, part = numbered_alike(tmp_path)
    by_slide = {str(i + 1): part[str((i + 1) % 6 + 1)] for i in range(6)}
    for header, expected in (("patient", by_slide), ("slide_id", part)):
        lines = "".join(f"{name},{said}\n" for name, said in part.items())
        (tmp_path / f"{header}.csv").write_text(f"{header},split\n{lines}")
        of_slides = FeatureBags(path=path, splits=str(tmp_path / f"{header}.csv")).load_pool()
        assert parts_by_name(of_slides) == expected
    of_patients = FeatureBags(path=path, bag="patient", splits=str(tmp_path / "patient.csv")).load_pool()
    assert parts_by_name(of_patients) == part


def test_clams_lists_that_may_be_of_slides_or_of_patients_are_refused(tmp_path):
    path, _ = numbered_alike(tmp_path)
    (tmp_path / "splits_0.csv").write_text(",train,val,test\n0,2,4,1\n1,3,5,6\n")
    with pytest.raises(UserError, match=r"slides and patients are called alike \(1, 2, 3, 4, … \(6 in all\)\)"):
        FeatureBags(path=path, bag="patient", splits=str(tmp_path / "splits_0.csv")).load_pool()
    pool = FeatureBags(path=path, splits=str(tmp_path / "splits_0.csv")).load_pool()
    assert pool.part[0].tolist() == [2, 0, 0, 1, 1, 2]


@pytest.mark.parametrize("where", ["own", "other"])
def test_columns_of_folds_go_before_one_of_a_single_split_wherever_they_stand(where, slides, tmp_path):
    folds = [lambda i, k=k: "test" if i % 6 == k else "train" for k in range(2)]
    written = table(
        tmp_path / "both.csv", slides, "split,fold_0,fold_1", lambda i: "train" if i < 8 else "test", *folds
    )
    keys = {"path": written} if where == "own" else {"path": str(tmp_path / "plain.csv"), "splits": written}
    pool = FeatureBags(**keys).load_pool()
    assert np.atleast_2d(pool.part).tolist() == [[2 if i % 6 == k else 0 for i in range(12)] for k in range(2)]
    assert any("column split" in note and "left alone: fold_0, fold_1 say the splits" in note for note in pool.notes)


def test_clams_files_of_random_splits_are_repeats_each_of_its_own(slides, tmp_path):
    folder = clam(tmp_path / "splits", 3, lambda i, k: i in (0, 1, k), lambda i, k: i in (6, 7))
    data = FeatureBags(path=str(tmp_path / "plain.csv"), splits=folder)
    pool = data.load_pool()
    assert partition_of(pool, 10) == ("given splits", None)
    replicate = data.replicate(pool, 2, base_seed=1)
    assert (replicate.repeat, replicate.fold) == (2, 0) and replicate.test.number.tolist() == [0, 1, 2]


@pytest.mark.parametrize("where", ["own", "other"])
def test_columns_of_folds_that_each_say_train_and_test(where, slides, tmp_path):
    """As Patho-Bench has them; without validation bags these are taken from training."""
    values = [lambda i, k=k: "test" if i % 6 == k else "train" for k in range(6)]
    columns = ",".join(f"fold_{k}" for k in range(6))
    written = table(tmp_path / "t.tsv", slides, columns, *values)
    data = FeatureBags(path=written) if where == "own" else FeatureBags(
        path=str(tmp_path / "plain.csv"), splits=written)  # fmt: skip
    pool = data.load_pool()
    train, val, test = parts(data, pool, 4)
    assert test == [4, 10] and sorted(train + val) == [i for i in range(12) if i % 6 != 4] and len(val) >= 1


def test_a_table_of_splits_takes_the_place_of_the_tables_own(slides, tmp_path):
    own = table(tmp_path / "own.csv", slides, "split", lambda i: "train" if i < 8 else "test")
    other = table(tmp_path / "other.csv", slides, "split", lambda i: "train" if i >= 4 else "test")
    data = FeatureBags(path=own, splits=other, folds=4)
    pool = data.load_pool()
    assert parts(data, pool, 0)[2] == [0, 1, 2, 3] and any("left alone" in note for note in pool.notes)
    assert pool.checksum != FeatureBags(path=own).load_pool().checksum


def test_each_repeat_of_a_whole_data_set_has_its_own_row_of_folds(tmp_path):
    slides = files.cohort(12)
    fold = np.stack([np.arange(12) // 2 % 3, np.arange(12) // 4])
    path = files.whole_set(tmp_path / "set.npz", [s for s, _ in slides], [y for _, y in slides], test_fold=fold)
    data = FeatureBags(path=str(path))
    pool = data.load_pool()
    for number in range(6):
        replicate = data.replicate(pool, number, base_seed=1)
        assert (replicate.repeat, replicate.fold) == divmod(number, 3)
        assert np.array_equal(replicate.test.number, np.flatnonzero(fold[number // 3] == number % 3))
        assert np.array_equal(replicate.val.number, np.flatnonzero(fold[number // 3] == (number + 1) % 3))
    with pytest.raises(UserError, match="6 replicates are given"):
        list(data.replicates(pool, 7, base_seed=1))


@pytest.mark.parametrize("change, expected", [
    (("s3", "s99"), "splits_0.csv, column train: 's99' is in no row of the table"),
    (("s3", "s0"), "splits_0.csv, column test: 's0' is in another part, too"),
])  # fmt: skip
def test_slides_of_clams_files_that_are_not_as_they_should(change, expected, slides, tmp_path):
    folder = clam(tmp_path / "splits", 2, lambda i, k: i < 2, lambda i, k: i in (10, 11))
    file = tmp_path / "splits" / "splits_0.csv"
    file.write_text(file.read_text().replace(f",{change[0]},", f",{change[1]},"))
    assert change[1] in file.read_text()
    with pytest.raises(UserError) as caught:
        FeatureBags(path=str(tmp_path / "plain.csv"), splits=folder).load_pool()
    assert expected in str(caught.value)


@pytest.mark.parametrize("columns, values, expected", [
    ("split,patient", [lambda i: "train" if i < 6 else "test", lambda i: f"p{i % 6}"], "group 'p0' is in test"),
    ("fold_0,patient", [lambda i: "train" if i < 6 else "test", lambda i: f"p{i % 6}"], "a patient must not be split"),
    ("fold_0", [lambda i: "train" if i % 2 else "test"], "fold_0: all bags in train have label 1"),
    ("fold_0", [lambda i: "train"], "fold_0: no bag is in test"),
    ("fold_0", [lambda i: "trane" if i else "test"], "'trane'; expected train, val, test, or nothing; did you mean"),
    ("split", [lambda i: "train" if i % 2 else "test"], "all bags in train have label 1"),
    ("fold", [lambda i: str(i % 2)], "2 folds; at least 3 are needed"),
])  # fmt: skip
def test_splits_that_would_not_do(columns, values, expected, slides, tmp_path):
    with pytest.raises(UserError) as caught:
        FeatureBags(path=table(tmp_path / "t.csv", slides, columns, *values)).load_pool()
    assert expected in str(caught.value)


def test_a_table_of_splits_that_lacks_slides_or_splits(slides, tmp_path):
    plain = str(tmp_path / "plain.csv")
    some = table(tmp_path / "some.csv", slides[:9], "fold", lambda i: str(i % 3))
    with pytest.raises(UserError, match=r"3 problems\n.*slide 's9': not in some.csv"):
        FeatureBags(path=plain, splits=some).load_pool()
    with pytest.raises(UserError, match="no column split, and none called fold_0"):
        FeatureBags(path=plain, splits=plain).load_pool()
    with pytest.raises(UserError, match=r"data.splits: .*gone: no such file or folder"):
        FeatureBags(path=plain, splits=str(tmp_path / "gone")).load_pool()
    with pytest.raises(UserError, match=r"data.splits: no splits_0.csv"):
        FeatureBags(path=plain, splits=str(tmp_path / "features")).load_pool()


def test_given_folds_are_left_alone_where_folds_are_to_be_made():
    given, made = FeatureBags(path="musk1"), FeatureBags(path="musk1", splits="made").resolved()
    assert made.splits == "made" and made.path == "musk1"
    pools = given.load_pool(), made.load_pool()
    assert pools[0].fold is not None and pools[1].fold is None
    assert pools[0].checksum != pools[1].checksum  # other bags are tested, so these are other runs
    tests = [sorted(made.replicate(pools[1], number, seed).test.number) for seed in (1, 2) for number in range(10)]
    assert sorted(np.concatenate(tests[:10])) == list(range(92))
    assert tests[:10] != tests[10:]


COHORTS = {
    "all of one part": ("split", lambda i: "test"),
    "a hospital": ("set", lambda i: "external"),
    "one fold": ("fold", lambda i: "0"),
    "parts of a bag's group": ("patient,partition", lambda i: f"p{i // 2},{('train', 'test')[i % 2]}"),
    "nearly the name": ("splits", lambda i: "external"),
    "columns of folds": ("fold_0,fold_1", lambda i: "external,"),
}
"""Columns and values of cohorts that are no splits to train by."""


@pytest.mark.parametrize("case", COHORTS)
def test_a_split_that_is_not_used_is_not_checked(case, slides, tmp_path):
    path = table(tmp_path / "t.csv", slides, *COHORTS[case])
    with pytest.raises(UserError):
        FeatureBags(path=path).load_pool()
    pools = FeatureBags(path=path, splits="made", folds=3).load_pool(), FeatureBags(path=path).load_pool(EVALUATION)
    for pool in pools:
        assert len(pool.bags) == 12 and pool.fold is None and pool.part is None
        assert not any("taken as split" in note for note in pool.notes)


def test_folds_of_a_file_that_are_not_used_are_not_checked(tmp_path):
    arrays = {"features": np.random.default_rng(0).normal(size=(24, 4)), "bag_index": np.arange(24) // 2,
              "bag_label": np.arange(12) % 2, "test_fold": np.zeros(12, int)}  # fmt: skip
    np.savez(tmp_path / "one.npz", **arrays)
    data = FeatureBags(path=str(tmp_path / "one.npz"), folds=3)
    with pytest.raises(UserError, match="at least 3 folds"):
        data.load_pool()
    for pool in (data.load_pool(EVALUATION), dataclasses.replace(data, splits="made").load_pool()):
        assert len(pool.bags) == 12 and pool.fold is None


def test_made_folds_keep_the_checksum_that_stored_studies_have(slides, tmp_path):
    path = table(tmp_path / "t.csv", slides, "fold", lambda i: str(i // 2 % 3))
    given = FeatureBags(path=path).load_pool()
    expected = hashlib.sha256(f"{given.checksum} made".encode()).hexdigest()[:16]
    assert FeatureBags(path=path, splits="made").load_pool().checksum == expected


def test_one_class_is_enough_where_nothing_is_trained(slides, tmp_path):
    healthy = [(slide, 0) for slide, label in slides if label == 0]
    data = FeatureBags(path=str(files.table(tmp_path / "t.csv", healthy)))
    for folds in (None, "made"):
        with pytest.raises(UserError, match="both classes are needed"):
            dataclasses.replace(data, splits=folds).load_pool()
    assert data.load_pool(EVALUATION).bags.label.tolist() == [0] * len(healthy)
    np.savez(tmp_path / "one.npz", features=np.eye(4), bag_index=np.arange(4), bag_label=np.ones(4, int))
    whole = FeatureBags(path=str(tmp_path / "one.npz"))
    with pytest.raises(UserError, match="both classes are needed"):
        whole.load_pool()
    assert whole.load_pool(EVALUATION).bags.label.tolist() == [1] * 4


@pytest.mark.parametrize("ending", ["", ".svs", ".h5"])
@pytest.mark.parametrize("columns, value", [
    ("slide_id,split", lambda i: ("train", "val", "test")[i // 2 % 3]), ("slide_id,fold", lambda i: str(i // 2 % 3)),
])  # fmt: skip
def test_a_table_of_splits_for_slides_whose_table_has_none(columns, value, ending, slides, tmp_path):
    rows = [f"s{i}{ending},{value(i)}" for i in reversed(range(12))]
    (tmp_path / "splits.csv").write_text("\n".join([columns, *rows]) + "\n")
    data = FeatureBags(path=str(tmp_path / "plain.csv"), splits=str(tmp_path / "splits.csv"))
    pool = data.load_pool()
    other = FeatureBags(path=table(tmp_path / "own.csv", slides, columns.split(",")[1], value))
    assert parts(data, pool, 0) == parts(other, other.load_pool(), 0)
    assert any("splits of splits.csv" in note for note in pool.notes)


def test_a_table_of_splits_by_patient(slides, tmp_path):
    named = table(tmp_path / "t.csv", slides, "patient", lambda i: f"p{i // 2}")
    lines = [f"p{i},{('train', 'val', 'test')[i % 3]}" for i in range(6)]
    (tmp_path / "splits.csv").write_text("\n".join(["patient,split", *lines]) + "\n")
    data = FeatureBags(path=named, splits=str(tmp_path / "splits.csv"))
    assert parts(data, data.load_pool(), 0) == ([0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11])


@pytest.mark.parametrize("column, value, expected", [
    ("split", lambda i: "trane" if i == 1 else ("train", "test")[i % 2],
     "splits.csv: row 12, column split: 'trane'; expected"),
    ("fold", lambda i: str(i % 2), "splits.csv: column fold (taken as split): 2 folds; at least 3"),
    ("split", lambda i: "train", "splits.csv: column split: no bag is in test"),
    ("fold_0", lambda i: "trane" if i == 1 else ("train", "test")[i % 2], "splits.csv: row 12, column fold_0: 'trane'"),
])  # fmt: skip
def test_what_is_wrong_in_a_table_of_splits_is_said_of_its_own_rows(column, value, expected, slides, tmp_path):
    rows = [f"s{i},{value(i)}" for i in reversed(range(12))]
    (tmp_path / "splits.csv").write_text("\n".join([f"slide_id,{column}", *rows]) + "\n")
    with pytest.raises(UserError) as caught:
        FeatureBags(path=str(tmp_path / "plain.csv"), splits=str(tmp_path / "splits.csv")).load_pool()
    assert expected in str(caught.value)


@pytest.mark.parametrize("column, said", [("split", "train"), ("fold_0", "train"), ("fold", "1")])
def test_a_slide_with_two_parts_in_a_table_of_splits(column, said, slides, tmp_path):
    other = "2" if column == "fold" else "test"
    rows = [f"s{i},{said}" for i in range(12)] + [f"s3,{other}"]
    (tmp_path / "splits.csv").write_text("\n".join([f"slide_id,{column}", *rows]) + "\n")
    with pytest.raises(UserError, match=f"row 14: 's3' has '{other}' in column .*, and '{said}' in row 5"):
        FeatureBags(path=str(tmp_path / "plain.csv"), splits=str(tmp_path / "splits.csv")).load_pool()


@pytest.mark.parametrize("text, expected", [
    ("", "splits_0.csv: empty; expected a header with the columns train, val, test"),
    (",,\n,,\n", "splits_0.csv: empty; expected a header with the columns train, val, test"),
    (",a,test\n0,s1,s2\n", "splits_0.csv: no column train (found: (empty), a, test)"),
    (",train,val\n0,s1,s2\n", "splits_0.csv: no column test (found: (empty), train, val)"),
    (",train,val,test\ns0,True,False,False\ns1,False,False,True\n", "column train: True and False, as in CLAM's"),
    (",train,val,test\n0,s0,s1,s2,s3\n", "splits_0.csv: row 2: 5 values; the header has 4 columns"),
    (",train,test,test\n0,s0,s1,s2\n", "splits_0.csv: header: column test is there 2 times"),
])  # fmt: skip
def test_files_of_clam_that_are_none(text, expected, slides, tmp_path):
    (tmp_path / "splits").mkdir()
    (tmp_path / "splits" / "splits_0.csv").write_text(text)
    with pytest.raises(UserError) as caught:
        FeatureBags(path=str(tmp_path / "plain.csv"), splits=str(tmp_path / "splits")).load_pool()
    assert expected in str(caught.value)


def test_one_file_of_clam_with_tabs(slides, tmp_path):
    folder = clam(tmp_path / "splits", 1, lambda i, k: i < 4, lambda i, k: i in (6, 7))
    text = (tmp_path / "splits" / "splits_0.csv").read_text()
    (tmp_path / "one.tsv").write_text(text.replace(",", "\t"))
    one = FeatureBags(path=str(tmp_path / "plain.csv"), splits=str(tmp_path / "one.tsv"))
    other = FeatureBags(path=str(tmp_path / "plain.csv"), splits=folder)
    assert parts(one, one.load_pool(), 0) == parts(other, other.load_pool(), 0)
