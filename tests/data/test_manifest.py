"""One's own images: what a manifest makes of them, and what it says of mistakes, with row and column."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2l_study.data import ManifestBags
from d2l_study.data.manifest_sources import strided_centres
from d2l_study.data.purpose import EVALUATION
from d2l_study.errors import UserError

SIDE = 48


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """A folder with the images 0.png … 9.png, of 48×48 noise pixels each, and their manifest's place."""
    (tmp_path / "images").mkdir()
    for i in range(10):
        pixels = np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    return tmp_path


def points(bags: int = 10, **changes: dict[int, str]) -> list[dict[str, str]]:
    """Two points in each image; bags alternate in label. changes: column -> {row: value}, rows as in the file."""
    rows = []
    for i in range(bags):
        for j in range(2):
            rows.append({"bag": f"b{i}", "label": str(i % 2), "path": f"images/{i}.png", "x": str(10 + 20 * j),
                         "y": "12", "instance_label": str(i % 2 * j)})  # fmt: skip
    for column, values in changes.items():
        for row in rows:
            row.setdefault(column, "")
        for number, value in values.items():
            rows[number - 2][column] = value
    return rows


def write(folder: Path, rows: list[dict[str, str]], name: str = "own.csv", **form) -> str:
    path = folder / name
    with path.open("w", newline="", encoding=form.pop("encoding", "utf-8")) as file:
        table = csv.DictWriter(file, list(rows[0]), **form)
        table.writeheader()
        table.writerows(rows)
    return str(path)


def load(path: str, **keys):
    return ManifestBags(path=path, **{"folds": 3, "patch_size": 16} | keys).load_pool()


def pixels(folder: Path, i: int) -> np.ndarray:
    return np.asarray(Image.open(folder / "images" / f"{i}.png"))


def message(path: str, **keys) -> str:
    with pytest.raises(UserError) as error:
        load(path, **keys)
    return str(error.value)


# ---- what it makes


def test_points_become_patches_around_them(folder):
    pool = load(write(folder, points()), patch_size=9)
    assert pool.names == tuple(f"b{i}" for i in range(10)) and pool.bags.label.tolist() == [0, 1] * 5
    assert pool.bags.sizes.tolist() == [2] * 10 and pool.bags.instance_label.tolist() == [0, 0, 0, 1] * 5
    third = pool.instances[pool.bags.instance[2 * 3 + 1]]
    assert np.array_equal(third.transpose(1, 2, 0), pixels(folder, 3)[12 - 4 : 12 + 5, 30 - 4 : 30 + 5])
    assert pool.xy[7].tolist() == [30, 12] and pool.image_of(3) == folder / "images" / "3.png"


def test_a_grid_covers_the_image_at_its_stride(folder):
    rows = [{k: row[k] for k in ("bag", "label", "path")} for row in points()[::2]]
    pool = load(write(folder, rows), cut="grid", patch_size=16, stride=8)
    assert pool.bags.sizes.tolist() == [25] * 10 and (pool.bags.instance_label == -1).all()
    second = pool.instances[pool.bags.instance[1]]
    assert np.array_equal(second.transpose(1, 2, 0), pixels(folder, 0)[:16, 8:24])
    assert load(write(folder, rows), cut="grid", patch_size=16).bags.sizes.tolist() == [9] * 10
    assert strided_centres(40, 17, (16, 16), 24).tolist() == [[7.5, 7.5], [31.5, 7.5]]


def test_whole_images_are_instances(folder):
    """Several images to a bag; without x and y this is what happens by itself."""
    rows = [{"bag": f"b{i // 2}", "label": str(i // 2 % 2), "path": f"images/{i}.png"} for i in range(10)]
    pool = load(write(folder, rows))
    assert pool.shape == (3, SIDE, SIDE) and pool.bags.sizes.tolist() == [2] * 5
    assert np.array_equal(pool.instances[pool.bags.instance[5]].transpose(1, 2, 0), pixels(folder, 5))


def test_groups_stay_together_and_folds_are_stratified(folder):
    group = {n: f"p{(n - 2) // 4}" for n in range(2, 22)}  # two bags, of both classes, to a patient
    data = ManifestBags(path=write(folder, points(group=group)), folds=5, patch_size=16)
    pool = data.load_pool()
    seen = []
    for fold in range(5):
        replicate = data.replicate(pool, fold, base_seed=1)
        seen += replicate.test.number.tolist()
        assert sorted(replicate.test.label) == [0, 1]
        assert len(set(pool.group[replicate.test.number])) == 1
    assert sorted(seen) == list(range(10))


def test_a_given_split_is_kept(folder):
    split = {n: ("train" if n < 14 else "val" if n < 18 else "test") for n in range(2, 22)}
    data = ManifestBags(path=write(folder, points(split=split)), patch_size=16)
    replicate = data.replicate(data.load_pool(), 3, base_seed=1)
    assert [part.number.tolist() for part in (replicate.train, replicate.val, replicate.test)] == [
        [0, 1, 2, 3, 4, 5], [6, 7], [8, 9],
    ]  # fmt: skip
    folds = {n: str((n - 2) // 4) for n in range(2, 22)}
    data = ManifestBags(path=write(folder, points(split=folds)), patch_size=16)
    assert data.replicate(data.load_pool(), 1, base_seed=1).test.number.tolist() == [2, 3]


@pytest.mark.parametrize("column, value", [("split", "test"), ("set", "external"), ("fold", "0")])
def test_a_manifest_that_is_evaluated_need_not_say_a_split(column, value, folder):
    path = write(folder, points(**{column: dict.fromkeys(range(2, 22), value)}))
    with pytest.raises(UserError, match=f"column {column}"):
        load(path)
    pool = ManifestBags(path=path, patch_size=16).load_pool(EVALUATION)
    assert len(pool.bags) == 10 and pool.part is None and pool.fold is None
    with pytest.raises(UserError, match=f"column {column}"):  # whatever the cache holds by now
        load(path)


def test_patches_of_a_split_manifest_are_shared_and_its_split_is_not_lost(folder):
    folds = {n: str((n - 2) // 4) for n in range(2, 22)}
    data = ManifestBags(path=write(folder, points(split=folds)), patch_size=16)
    evaluated = data.load_pool(EVALUATION)
    assert evaluated.fold is None and evaluated.part is None
    trained = data.load_pool()
    assert trained.fold.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and trained.checksum == evaluated.checksum


def test_a_manifest_of_one_class_can_be_evaluated(folder):
    rows = [row | {"label": "0", "instance_label": "0"} for row in points()]
    path = write(folder, rows)
    assert "both classes are needed" in message(path)
    assert ManifestBags(path=path, patch_size=16).load_pool(EVALUATION).bags.label.tolist() == [0] * 10


def test_forms_of_a_file_that_mean_the_same(folder):
    """Byte order mark, semicolons, tabs, Windows line ends and paths, absolute paths, Parquet, case of the header."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    expected = load(write(folder, points())).bags
    rows = points()
    windows = [row | {"path": row["path"].replace("/", "\\")} for row in rows]
    absolute = [row | {"path": str(folder / row["path"])} for row in rows]
    capital = [{("Label" if k == "label" else k): v for k, v in row.items()} for row in rows]
    typed = pa.table({
        "bag": [row["bag"] for row in rows], "label": [row["label"] == "1" for row in rows],
        "path": [row["path"] for row in rows], "x": [float(row["x"]) for row in rows],
        "y": [int(row["y"]) for row in rows], "instance_label": [int(row["instance_label"]) for row in rows],
        "features": [[1.0, 2.0]] * len(rows),
    })  # fmt: skip
    pq.write_table(typed, folder / "own.parquet")
    for path in (
        write(folder, rows, "bom.csv", encoding="utf-8-sig"),
        write(folder, rows, "semicolon.csv", delimiter=";"),
        write(folder, rows, "tab.csv", delimiter="\t", lineterminator="\r\n"),
        write(folder, windows, "windows.csv"),
        write(folder, absolute, "absolute.csv"),
        write(folder, capital, "capital.csv"),
        str(folder / "own.parquet"),
    ):
        found = load(path).bags
        assert np.array_equal(found.label, expected.label), path
        assert np.array_equal(found.instance_label, expected.instance_label), path
        assert np.array_equal(found.offsets, expected.offsets), path


def test_paths_may_begin_at_another_folder(folder, tmp_path):
    (tmp_path / "tables").mkdir()
    path = write(tmp_path / "tables", points())
    assert "no such file (looked for" in message(path)
    assert len(load(path, root=str(folder)).bags) == 10


def test_the_same_content_is_cut_once(folder, cache):
    path = write(folder, points())
    first = load(path)
    entries = sorted(p.name for p in cache.glob("manifest-*"))
    assert load(path).checksum == first.checksum and sorted(p.name for p in cache.glob("manifest-*")) == entries
    Image.fromarray(255 - pixels(folder, 4)).save(folder / "images" / "4.png")
    assert load(path).checksum != first.checksum


# ---- what it says of mistakes

SPLIT = {n: ("train" if n < 14 else "val" if n < 18 else "test") for n in range(2, 22)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"label": {3: "yes"}}, "row 3, column label: 'yes' is not allowed; expected 0 or 1"),
        ({"label": {2: "2", 3: "2"}}, "row 2, column label: '2' is not allowed"),
        ({"label": {5: "0"}}, "row 5, column label: bag 'b1' has 0 here and 1 in row 4; all rows of a bag must agree"),
        ({"bag": {7: ""}}, "row 7, column bag: empty"),
        ({"path": {4: "images/11.png"}}, "row 4, column path: 'images/11.png': no such file (looked for"),
        ({"path": {4: "image/1.png"}}, "row 4, column path: 'image/1.png': no such file"),
        ({"path": {4: "images"}}, "row 4, column path: 'images' is a folder; expected an image"),
        ({"path": {4: "s3://bucket/1.png"}}, "is an address, not a file"),
        ({"path": {4: "C:\\scans\\1.png"}}, "it has a drive"),
        ({"x": {3: "48.5"}}, "row 3, column x: 48.5 is outside: 0.png has 48×48 pixels, counted from 0"),
        ({"y": {3: "-2"}}, "row 3, column y: -2 is outside"),
        ({"x": {3: ""}}, "row 3, column x: empty; data.cut: points needs a place"),
        ({"x": {3: "12,5"}}, "row 3, column x: '12,5' is not a number; decimals are written with a point"),
        ({"y": {3: "inf"}}, "row 3, column y: 'inf' is not a place in an image"),
        ({"x": {3: "10"}}, "row 3: the same point of the same image as row 2"),
        ({"instance_label": {2: "1"}}, "row 2, column instance_label: 1 in bag 'b0', which has label 0"),
        ({"instance_label": {4: "maybe"}}, "row 4, column instance_label: 'maybe' is not allowed"),
        ({"path": {4: "images/0.png", 5: "images/0.png"}}, "row 4, column path: 0.png is in bag 'b1' and in bag 'b0'"),
        ({"group": {4: "p1", 5: "p2"}}, "row 5, column group: bag 'b1' has 'p2' here and 'p1' in row 4"),
        ({"split": {**SPLIT, 6: "", 7: ""}}, "row 6, column split: empty; expected train, val or test"),
        ({"split": {**SPLIT, 6: "tset", 7: "tset"}}, "row 6, column split: 'tset'; expected train, val or test"),
        ({"split": {**SPLIT, 6: "validation", 7: "validation"}}, "did you mean 'val'?"),
        ({"split": dict.fromkeys(range(2, 22), "train")}, "column split: no bag is in test"),
        ({"split": {n: str((n - 2) // 2 % 2) for n in range(2, 22)}}, "column split: 2 folds; at least 3 are needed"),
        ({"split": dict.fromkeys(range(2, 22), "0")}, "column split: 1 fold; at least 3 are needed"),
        ({"split": {n: str((n - 2) // 2 % 4 + 1) for n in range(2, 22)}}, "no bag is in fold 0; folds count from 0"),
        ({"split": SPLIT, "group": dict.fromkeys((2, 3, 20, 21), "p")}, "group 'p' is in test (bag 'b9') and in train"),
        ({"split": {n: "train" if (n - 2) // 2 % 2 else "test" for n in range(2, 22)}},
         "column split: all bags in train have label 1; both classes are needed"),
        ({"label": dict.fromkeys(range(2, 22), "1")}, "column label: all 10 bags have label 1; both classes are"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_row_and_column(folder, changes, expected):
    found = message(write(folder, points(**changes)))
    assert expected in found and str(folder / "own.csv") in found


def test_all_mistakes_are_named_at_once(folder):
    found = message(write(folder, points(label={3: "yes", 9: "no"}, path={4: "nowhere.png"}, x={8: "left"})))
    assert found.startswith(f"{folder / 'own.csv'}: 4 problems\n")
    for part in ("row 3, column label", "row 4, column path", "row 8, column x", "row 9, column label"):
        assert part in found
    found = message(
        write(folder, points(path={n: f"{n}.png" for n in range(2, 22)}, y={n: f"up{n}" for n in range(2, 22)}))
    )
    assert "40 problems" in found and found.endswith("… and 20 more") and found.count("\n") == 21


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"x": ["inf"] * 20}, "row 2, column x: 'inf' is not a place in an image (and so in 19 more rows)"),
        ({"y": [f"{n},5" for n in range(20)]}, "'0,5' is not a number; decimals are written with a point (and so in"),
        ({"x": None, "y": None}, "header: there are no columns x and y, so each row is taken for a whole image; 10"),
        ({"label": ["pos", "neg"] * 10}, "'pos' is not allowed; expected 0 or 1 (and so in 9 more rows)"),
        ({"label": ["pos", "neg"] * 10}, "expected 0 or 1 (positive is written 1, negative 0)"),
        ({"label": [*"01" * 9, "0", "nan"]}, "row 21, column label: 'nan' is not allowed; expected 0 or 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_all_rows_is_said_once(folder, columns, said):
    rows = points()
    for n, row in enumerate(rows):
        del row["instance_label"]
        for name, values in columns.items():
            row.update({name: values[n]} if values else {})
            row.pop(name) if values is None else None
    found = message(write(folder, rows))
    assert said in found and found.count("\n") <= 2 and "values; bags" not in found


@pytest.mark.parametrize("words", [("False", "True"), ("false", "TRUE")])
def test_truth_values_are_labels(folder, words):
    rows = points()
    for row in rows:
        row["label"], row["instance_label"] = words[int(row["label"])], words[int(row["instance_label"])]
    pool = load(write(folder, rows))
    assert pool.bags.label.tolist() == [0, 1] * 5 and pool.bags.instance_label.tolist() == [0, 0, 0, 1] * 5


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"\x1f\x8b\x08\0", "this is compressed (gzip); unpack it"),
        (b"PK\x03\x04\0", "this is a spreadsheet (.xlsx)"),
        (b"PAR1\x15", "this is Parquet; let its name end in .parquet"),
        (b"bag|label|path\nb0|0|a.png\n", "the columns are separated by |; expected comma, semicolon or tab"),
    ],
)
def test_a_table_of_another_form_is_named_as_what_it_is(folder, begin, said):
    (folder / "own.csv").write_bytes(begin)
    assert said in message(str(folder / "own.csv"))


def test_a_mistake_of_many_rows_is_one_sentence(folder):
    label = {n: str((n - 2) // 2 % 3) for n in range(2, 22)}
    assert message(write(folder, points(label=label))) == (
        f"{folder / 'own.csv'}: row 6, column label: '2' is not allowed; expected 0 or 1 (there are 3 values; bags are "
        "positive, 1, or negative, 0: write in column label which are which) (and so in 5 more rows)"
    )
    words = {n: ("benign", "malignant")[n % 2] for n in range(2, 22)}
    found = message(write(folder, points(label=words, instance_label=dict.fromkeys(range(2, 22), "cell"))))
    assert "3 problems" in found and "row 2, column label: 'benign'" in found and "in 19 more rows" in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty; expected a header with the columns bag, label, path"),
        ("bag,label,path\n", "no rows below the header"),
        ("bag,lable,path\nb0,0,a.png\n", "header: no column label; did you mean 'lable'? (found: bag, lable, path)"),
        ("bag,label,path,label\nb0,0,images/0.png,1\n", "header: column label is there 2 times"),
        ("bag,label,path,x\nb0,0,images/0.png,1\n", "only one of the columns x and y"),
        ("bag,Lable,path\nb0,0,a.png\n", "header: no column label; did you mean 'Lable'? (found: bag, Lable, path)"),
        ("bag,label,path,Groups\nb0,0,images/0.png,1\n", "unknown column 'Groups'; did you mean 'group'?"),
        ("bag,label,path,groups\nb0,0,images/0.png,1\n", "unknown column 'groups'; did you mean 'group'?"),
        ("bag,label,path\nb0,0,images/0.png,9\nb1,1\n", "row 2: 4 values; the header has 3 columns"),
        ('bag,label,path\n"b0,0,images/0.png\n', "row 2: a quote is opened here and not closed"),
        ('bag,label,path\nb0,0,images/0.png\n"b1,1,images/1.png\nb2,0,"images/2.png"\n',
         "row 3: a quote is opened here"),
        ('bag,label,path\nb0,0,images/0.png\n"b1,1,images/1.png\nb2",0\n',
         "row 3: 2 values; the header has 3 columns; a quote that is opened in row 3 is closed in row 4"),
        ("b0,0,images/0.png\nb1,1,images/1.png\n", "header: no column bag"),
    ],
)  # fmt: skip
def test_a_table_that_is_none(folder, text, expected):
    (folder / "own.csv").write_text(text)
    assert expected in message(str(folder / "own.csv"))


def test_files_that_are_no_table(folder):
    assert message(str(folder / "onw.csv")).endswith("onw.csv: no such file")
    write(folder, points())
    assert message(str(folder / "onw.csv")).endswith("no such file; did you mean 'own.csv'?")
    (folder / "own.csv").write_text("bag,label,path\nb0,0,a\n", encoding="utf-16")
    assert "not UTF-8 text (it looks like UTF-16" in message(str(folder / "own.csv"))
    (folder / "own.csv").write_bytes(b"bag,label,path\nb\xe40,0,a\n")
    assert "row 2: not UTF-8 text (byte 0xe4)" in message(str(folder / "own.csv"))
    (folder / "own.parquet").write_bytes(b"PAR1 but not really")
    assert "cannot be read as Parquet" in message(str(folder / "own.parquet"))
    assert "data.path: missing" in message(None)


def test_images_that_do_not_fit(folder):
    small, large = folder / "images" / "3.png", folder / "images" / "5.png"
    Image.fromarray(pixels(folder, 3)[:10]).save(small)
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(large)
    assert "row 8, column path: 3.png has 48×10 pixels, smaller than a patch (data.patch_size: 16)" in message(
        write(folder, points())
    )
    whole = [{k: row[k] for k in ("bag", "label", "path")} for row in points()[::2]]
    found = message(write(folder, whole))
    assert "row 5, column path: 3.png has 48×10 pixels, that of row 2 48×48" in found and "row 7, column path" in found
    for i in range(10):
        Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(folder / "images" / f"{i}.png")
    assert "an instance has at most 256 a side (data.cut: grid" in message(write(folder, whole))


def test_images_that_cannot_be_read_are_all_named(folder):
    """A header that says nothing, and pixels that end too early, which cutting notices only."""
    (folder / "images" / "1.png").write_bytes(b"not an image")
    (folder / "images" / "2.png").write_bytes(b"nor this")
    found = message(write(folder, points()))
    assert "2 problems" in found and "row 4, column path" in found and "row 6, column path" in found
    for i in (1, 2, 3, 4):
        good = folder / "good.png"
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(good)
        data = good.read_bytes()
        (folder / "images" / f"{i}.png").write_bytes(data[: len(data) // 2] if i in (3, 4) else data)
    found = message(write(folder, points()))
    assert "2 problems" in found and "row 8, column path" in found and "row 10, column path" in found


def test_a_cut_that_the_manifest_does_not_go_with(folder):
    whole = [{k: row[k] for k in ("bag", "label", "path")} for row in points()[::2]]
    assert "header: no columns x and y, which data.cut: points needs" in message(write(folder, whole), cut="points")
    assert "column instance_label: rows are whole images under data.cut: grid" in message(
        write(folder, points()), cut="grid"
    )
    twice = [{k: v for k, v in row.items() if k != "instance_label"} for row in points()]
    assert "row 3: the same image as row 2; data.cut: points reads the columns x and y" in message(
        write(folder, twice), cut="grid"
    )


def test_too_few_groups_for_the_folds(folder):
    data = ManifestBags(path=write(folder, points()), folds=11)
    with pytest.raises(UserError, match=r"data\.folds: 11 is more than the 10 groups"):
        list(data.replicates(data.load_pool(), 1, 1))


def test_where_the_manifest_lies_is_in_no_identity(folder):
    here, there = ManifestBags(path="a.csv").resolved(), ManifestBags(path="/b/a.csv", root="/c").resolved()
    assert here.identity() == there.identity() and Path(here.path).is_absolute()
