"""Tables and images that would take for ever, or all memory, are refused with the limit; large honest ones are read."""

import csv
import struct
import zlib

import numpy as np
import pytest
from test_manifest import folder, load, message, points, write  # noqa: F401

from d2l_study.data import ManifestBags, manifest_columns, manifest_sources, manifest_table
from d2l_study.data.manifest_rows import read_rows
from d2l_study.errors import UserError


@pytest.mark.parametrize("value", ["20231105", "99999999999999", "9" * 5000, "1000", "²", "١"])
def test_a_split_of_numbers_that_are_no_folds(folder, value):  # noqa: F811
    found = message(write(folder, points(split={n: value if n < 4 else str(n % 3) for n in range(2, 22)})))
    shown = value if len(value) < 60 else value[:60] + "…"
    assert f"column split: '{shown}'; expected train, val or test (or the number of a fold, from 0 to 999" in found
    assert len(found) < 3000


def test_folds_may_be_numbers_of_a_table_of_floats(folder):  # noqa: F811
    split = {n: f"{(n - 2) // 2 % 3}.0" for n in range(2, 22)}
    assert load(write(folder, points(split=split))).fold.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_limits_are_said(folder, monkeypatch):  # noqa: F811
    path = write(folder, points())
    for module, name, value, words in (
        (manifest_table, "MOST_ROWS", 19, "more than 19 rows, which is the most that are read"),
        (manifest_table, "MOST_BYTES", 100, "a CSV file of at most 0 GiB is read"),
        (manifest_columns, "MOST_COLUMNS", 5, ""),
        (manifest_table, "MOST_COLUMNS", 5, "6 columns; at most 5 are read"),
        (manifest_sources, "MOST_INSTANCES", 19, "20 patches in all; at most 19 are held"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            if words:
                assert words in message(path)


def test_a_small_file_of_a_huge_image_is_not_cut_at_every_pixel(folder):  # noqa: F811
    """A PNG of 13,000² pixels in a few bytes, stride 1: 169 million patches."""
    body = b""
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ):
        body += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (folder / "images" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    rows = [{k: row[k] for k in ("bag", "label", "path")} for row in points()[::2]]
    found = message(write(folder, rows), cut="grid", patch_size=32, stride=1)
    assert found.startswith("data.stride: 1 makes 168,") and "at most 10,000,000 are held (a larger stride" in found


def test_what_is_no_file_is_not_read(tmp_path, cache):
    for path, words in (("/dev/zero", "neither a file nor a folder"), (str(tmp_path), "a folder"),
                        ("~nosuchuser/a.csv", "there is no user 'nosuchuser' here")):  # fmt: skip
        with pytest.raises(UserError, match=f"data.path: .*{words}"):
            ManifestBags(path=path).load_pool()
    with pytest.raises(UserError, match=r"data.root: '~nosuchuser'"):
        ManifestBags(path="a.csv", root="~nosuchuser").resolved()


def test_parquet_values_that_have_no_text_are_named(folder):  # noqa: F811
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = points()
    table = pa.table({key: [row[key] for row in rows] for key in ("label", "path", "x", "y")})
    beyond = pa.array([2**62] * len(rows), pa.timestamp("ms"))
    pq.write_table(table.append_column("bag", beyond), folder / "own.parquet")
    assert "column bag: values of type timestamp" in message(str(folder / "own.parquet"))
    lists = pa.array([[1.0]] * len(rows))
    pq.write_table(table.append_column("bag", lists), folder / "own.parquet")
    assert "column bag: values of type list" in message(str(folder / "own.parquet"))


def test_a_parquet_table_with_gaps_reads_as_the_csv_does(folder):  # noqa: F811
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = points(group={2: "p", 3: "p"}, instance_label={2: "", 5: ""})
    expected = load(write(folder, rows))
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    columns["instance_label"] = [int(v) if v else None for v in columns["instance_label"]]
    columns["group"] = pa.array([v or None for v in columns["group"]]).dictionary_encode()
    columns["x"], columns["y"] = [float(v) for v in columns["x"]], [np.int32(v) for v in columns["y"]]
    pq.write_table(pa.table(columns), folder / "own.parquet", row_group_size=3)
    found = load(str(folder / "own.parquet"))
    assert np.array_equal(found.bags.instance_label, expected.bags.instance_label)
    assert found.group_names == expected.group_names and np.array_equal(found.instances, expected.instances)


def test_rows_keep_their_lines_whatever_quotes_and_gaps_there_are(tmp_path):
    """Parts of a table are read one after the other; the numbers of rows are those of an editor."""
    (tmp_path / "a.png").write_bytes(b"")
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["bag", "label", "path", "x", "y", "comment"])
        for i in range(500):
            out.writerow([f"b{i}", i % 2, "a.png", i, "" if i % 2 else 1.5, "two\nlines" if i % 7 == 0 else ""])
            if i % 100 == 0:
                file.write("\n,,,,,\n")
    lines = path.read_text().split("\n")
    for cells in (6, 60, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest_table, "_CELLS", cells)
            rows = read_rows(path, tmp_path)
        assert len(rows) == 500 and rows.bag.values == [f"b{i}" for i in range(500)]
        assert all(lines[number - 1].startswith(f"b{i},") for i, number in enumerate(rows.number))
        assert rows.x.tolist() == list(range(500)) and np.isnan(rows.y[1::2]).all() and (rows.y[::2] == 1.5).all()
