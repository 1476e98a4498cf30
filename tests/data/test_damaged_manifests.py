"""Manifests with damage, nonsense and odd forms are read or refused in a few lines: no traceback, nothing endless."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from d2l_study.data.manifest_checks import check_bags
from d2l_study.data.manifest_problems import MOST_PROBLEMS
from d2l_study.data.manifest_rows import read_rows
from d2l_study.errors import UserError

HEADER = ["bag", "label", "path", "x", "y", "instance_label", "group", "split", "patient"]
NASTY = [
    "", " ", "0", "1", "2", "-1", "1e400", "nan", "inf", "1_0", "٣", "9" * 5000, "20231105", "99999999999999", "0x1",
    "a,b", 'a"b', '"', "a\nb", "\t", "=1+1", "../../etc/passwd", "/dev/zero", "i0.png/x", "é" * 300, "\0", "\ufeff",
    "train", "val", "test", "TRAIN", "None", "[1]", "true", "i0.png", "s3://a", "C:\\a", "~", "~nosuchuser/a", "\u2028",
]  # fmt: skip


def table(rng):
    rows = [
        [f"b{i}", i % 2, f"i{i}.png", 5 + i, 6, i % 2, f"g{i}", ("train", "test")[i // 2 % 2], ""] for i in range(8)
    ]
    names = list(HEADER)
    for _ in range(rng.integers(4)):
        rows[rng.integers(8)][rng.integers(9)] = NASTY[rng.integers(len(NASTY))]
    if rng.random() < 0.2:
        names[rng.integers(9)] = ["Patient ID", "x", "fold", "", "class", "slide_id", "x_center"][rng.integers(7)]
    if rng.random() < 0.2:
        rows[rng.integers(8)].append("more")
    kept = sorted(rng.permutation(9)[: rng.integers(5, 10)]) if rng.random() < 0.3 else range(9)
    return [[row[i] for i in kept if i < len(row)] + row[9:] for row in (names, *rows)]


def as_csv(rows, rng):
    out = io.StringIO()
    csv.writer(
        out, delimiter=",;\t"[rng.integers(3)], quoting=[csv.QUOTE_MINIMAL, csv.QUOTE_ALL][rng.integers(2)]
    ).writerows(rows)
    data = bytearray(out.getvalue().encode())
    for _ in range(rng.integers(3)):
        place = rng.integers(len(data))
        data[place : place + rng.integers(3)] = [b'"', b"\n", b"\r", b"\0", b"\xff", b",", b""][rng.integers(7)]
    return bytes(data)


def as_parquet(rows, rng):
    names = [name or "empty" for name in dict.fromkeys(rows[0])]
    columns = {}
    for i, name in enumerate(names):
        values = [str(row[i]) if i < len(row) else None for row in rows[1:]]
        kind = rng.integers(6)
        if kind == 0 and all(v is not None and v.isascii() and v.isdigit() and len(v) < 9 for v in values):
            columns[name] = pa.array([int(v) for v in values])
        elif kind == 1:
            columns[name] = pa.array([2**62 - j for j in range(8)], pa.timestamp("us"))
        elif kind == 2:
            columns[name] = pa.array(values).dictionary_encode()
        else:
            columns[name] = pa.array(values)
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    data = bytearray(out.getvalue())
    if rng.random() < 0.5:
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def look_at(folder, seeds):
    for i in range(8):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(folder / f"i{i}.png")
    read = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        rows = table(rng)
        path = folder / ("own.csv" if seed % 3 else "own.parquet")
        path.write_bytes(as_csv(rows, rng) if seed % 3 else as_parquet(rows, rng))
        try:
            check_bags(read_rows(path, folder), ("points", "whole", "grid")[rng.integers(3)])
            read += 1
        except UserError as error:
            lines = str(error).splitlines()
            assert str(path) in lines[0] and len(lines) <= MOST_PROBLEMS + 2, (seed, str(error))
            assert max(map(len, lines)) < 1500, (seed, str(error))
    assert 0 < read < len(seeds)


def test_a_damaged_manifest_is_read_or_refused_in_a_few_lines(tmp_path):
    look_at(tmp_path, range(250))


@pytest.mark.soak
def test_many_damaged_manifests_are_read_or_refused_in_a_few_lines(tmp_path):
    look_at(tmp_path, range(1000, 60_000))
