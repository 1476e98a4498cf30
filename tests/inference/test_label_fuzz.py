"""Damaged and hostile inputs of `label` (arrays, IDX files, images, model files) are labelled or answered in a line.

One function makes and judges the cases; `make test` runs a few, `make soak` many. The same seed makes the same cases.
"""

import contextlib
import gzip
import io
import json
import random
import resource
import signal
import struct
import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from d2l_study import cli
from d2l_study.inference.model_file import METADATA, ModelCard, to_bytes
from d2l_study.models import MilModel
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS

SHORT, LONG = 120, 6000
SEED = 7
SIDE = 16
MOST_MEMORY = 2**31
"""Bytes by which the process may grow over all cases: an image of the most pixels that are decoded has 0.7 GB."""
HANGS = 120
"""Seconds after which a case is taken for one without end."""
GREY, RGB = "a1" * 10, "b2" * 10


def stored(channels):
    network = MilModel((channels, SIDE, SIDE), "attention", 6, 4)
    sections = {"data": {"dataset": "mnist"}, "teacher": {}}
    card = ModelCard("teacher", sections, (0.5,) * channels, (0.2,) * channels, "s", GREY, 0, 0.01)
    return to_bytes(network, network.init(np.random.default_rng(3)), card)


def commit(root, config, weights):
    ledger = Ledger(LocalStorage(root))
    sections = {"data": {"dataset": "mnist"}}
    ledger.write_config(config, {"stage": "teacher", "sections": sections, "data_checksum": "-", "base_seed": 1})
    ledger.commit(config, 0, {"status": "done", "val_bag_auc": 0.5}, {WEIGHTS: weights})


# ---- what is damaged
def levels(draw, *shape):
    return np.random.default_rng(draw.randrange(1000)).integers(0, 256, shape, dtype=np.uint8)


def array(draw):
    """Of shapes and types that are right and wrong; some are legible numbers that are no pixels."""
    right = [(3, SIDE, SIDE), (3, 1, SIDE, SIDE), (2, 3, SIDE, SIDE), (SIDE, SIDE), (40, 50, 3)]
    shape = draw.choice([*right, *right, (0, SIDE, SIDE), (), (9,), (1, 2, 3, 4, 5), (SIDE, SIDE, 3)])
    values = levels(draw, *shape)
    kind = draw.choice([*["u1"] * 8, "<f4", ">f8", "f2", "i8", "?", "c8", "U4", "O", "M8[s]", "V3", "<u2"])
    found = values.astype(kind) if kind not in ("V3", "O") else np.zeros(shape, kind)
    if kind in ("<f4", ">f8") and draw.random() < 0.5 and found.size:
        found.reshape(-1)[0] = draw.choice([np.nan, np.inf, -1, 1e300 if kind == ">f8" else 1e38, 7])
    return np.asfortranarray(found) if draw.random() < 0.1 else found


def npy(draw):
    out = io.BytesIO()
    np.save(out, array(draw))
    data = out.getvalue()
    if draw.random() < 0.3:  # a header of somebody's own
        header = draw.choice([
            "{'descr': '|u1', 'fortran_order': False, 'shape': (999999999999, 16, 16)}", "{" * 300, "[1]", "{}",
            "{'descr': '|u1', 'fortran_order': False, 'shape': (-3, 16, 16)}", "{'descr': [], 'shape': 1}", "\0" * 40,
            "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 16, 16), 'x': __import__('os')}",
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'9' * 5000}, 16, 16)}}",
            "{'descr': 'u1,' , 'fortran_order': 3, 'shape': (3, 16, 16)}",
        ]).encode()  # fmt: skip
        data = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + data[128:]
    return "a.npy", data


def npz(draw):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for number in range(draw.choice([0, 1, 1, 1, 2])):
            archive.writestr(f"arr_{number}.npy", npy(draw)[1])
    return "a.npz", out.getvalue()


def idx(draw):
    wrong = [(2**31, SIDE, SIDE), (3, 0, SIDE), (9,), (3, SIDE), (2**32 - 1,) * 3]
    sides = draw.choice([*[(3, SIDE, SIDE)] * 5, *wrong])
    data = bytes([0, 0, draw.choice([8, 8, 8, 9, 0x0D]), draw.choice([*[len(sides)] * 4, 0, 200])])
    data += struct.pack(f">{len(sides)}I", *sides) + levels(draw, 3, SIDE, SIDE).tobytes()
    return ("a.gz", gzip.compress(data)) if draw.random() < 0.4 else ("a.idx", data)


def image(draw):
    side = draw.choice([(SIDE, SIDE), (SIDE, SIDE), (40, 30), (SIDE - 1, 90), (1, 1)])
    mode = draw.choice(["RGB", "RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "I", "F", "I;16"])
    shade = Image.fromarray(levels(draw, *side, 3))
    made = Image.new("I;16", side[::-1]) if mode == "I;16" else shade.convert(mode)
    kind = draw.choice(["PNG", "BMP", "JPEG", "TIFF", "TIFF", "TIFF", "GIF", "PPM"])
    how = {"compression": draw.choice(["raw", "tiff_lzw", "jpeg"])} if kind == "TIFF" else {}
    out = io.BytesIO()
    try:
        made.save(out, kind, **how)
    except (OSError, ValueError, KeyError):  # a mode that this format has not
        out = io.BytesIO()
        shade.save(out, "PNG")
    return f"a.{draw.choice(['png', 'tif', 'jpg', 'bmp'])}", out.getvalue()


WRONG = [None, True, -1, 0, 1, 2**31, 10**30, 1e308, -1e308, "", "teacher", [], [1], [[]], {}, {"a": 1}, "x" * 3000]


def model(draw):
    """The card of a model with some of its values changed, under the tensors that it had."""
    data = stored(draw.choice([1, 3]))
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    card = json.loads(header["__metadata__"][METADATA])
    holder = draw.choice([card, card, card["network"]])
    for _ in range(draw.choice([0, 0, 1, 2])):
        holder[draw.choice(list(holder))] = draw.choice(WRONG)
    header["__metadata__"][METADATA] = json.dumps(card)
    if draw.random() < 0.3:
        tensor = header[draw.choice([name for name in header if name != "__metadata__"])]
        tensor[draw.choice(list(tensor))] = draw.choice([*WRONG, "F8_E4M3", "I64", [2**40, 2**40], [0, 2**60]])
    text = json.dumps(header).encode()
    return "model", len(text).to_bytes(8, "little") + text + data[8 + size :]


def damaged(draw, data):
    """Some bits flipped, mostly near the beginning, a number set to an extreme, or the end cut off or gone on with."""
    data = bytearray(data)
    for _ in range(draw.choice([0, 0, 1, 1, 2, 8])):
        if not data:
            break
        at = draw.randrange(len(data) if draw.random() < 0.4 else min(len(data), 120))
        way = draw.choice(["flip", "flip", "number", "cut", "more", "zeros"])
        if way == "flip":
            data[at] ^= 1 << draw.randrange(8)
        elif way == "number":
            number = draw.choice([0, 1, 0x7FFF, 0xFFFF, 2**31 - 1, 2**32 - 1])
            data[at : at + 4] = struct.pack(draw.choice("<>") + "I", number)
        elif way == "cut":
            del data[at:]
        elif way == "more":
            data += draw.randbytes(draw.choice([1, 7, 500]))
        else:
            data[at : at + 40] = bytes(40)
    return bytes(data)


def sound(draw, kind, channels):
    """What can be labelled, so that each kind is."""
    pixels = levels(draw, 3, channels, SIDE, SIDE)
    out = io.BytesIO()
    if kind is npy:
        np.save(out, pixels)
        return "a.npy", out.getvalue()
    if kind is npz:
        np.savez_compressed(out, pixels)
        return "a.npz", out.getvalue()
    if kind is idx and channels == 1:
        return "a.idx", bytes([0, 0, 8, 3]) + struct.pack(">3I", 3, SIDE, SIDE) + pixels.tobytes()
    pixels = levels(draw, 40, 30, 3) if channels == 3 else levels(draw, 40, 30)
    Image.fromarray(pixels).save(out, draw.choice(["PNG", "TIFF"]))
    return "a.png", out.getvalue()


# ---- the judge
def labelled(root, tmp_path, number, draw):
    """One case; returns its exit code and what was said."""
    kind = draw.choice([npy, npz, idx, image, image, image, model, model])
    channels, well = draw.choice([1, 3]), draw.random() < 0.2
    name, data = kind(draw)
    data = damaged(draw, data)
    folder = tmp_path / f"{number}"
    folder.mkdir()
    run = GREY if channels == 1 else RGB
    if kind is model:
        run = f"{number:020x}"
        commit(root, run, stored(channels) if well else data)
        given = folder / "a.npy"
        np.save(given, levels(draw, 2, channels, SIDE, SIDE))
    else:
        name, data = sound(draw, kind, channels) if well else (name, data)
        given = folder / name
        given.write_bytes(data)
        given = folder if kind is image and draw.random() < 0.2 else given
    words = ["label", "--root", str(root), "--run", run, str(given), "--out", str(tmp_path / f"{number}-out")]
    words += ["--stride", draw.choice(["1", "3"])] * (draw.random() < 0.2)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(words)
    return kind, code, out.getvalue(), err.getvalue(), tmp_path / f"{number}-out"


def hangs(number, frame):
    raise AssertionError(f"no end after {HANGS} s")


def check_cases(tmp_path, count, seed):
    torch.set_num_threads(1)
    root, seen = tmp_path / "runs", {}
    for config, channels in ((GREY, 1), (RGB, 3)):
        commit(root, config, stored(channels))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = signal.signal(signal.SIGALRM, hangs)
    try:
        for number in range(count):
            draw = random.Random(f"{seed} {number}")
            signal.alarm(HANGS)
            kind, code, out, err, made = labelled(root, tmp_path, number, draw)
            signal.alarm(0)
            case = f"case {number} of seed {seed} ({kind.__name__}): {code}\n{out}{err}"
            assert code in (0, 2), case
            assert "Traceback" not in out + err and "Warning" not in out + err, case
            assert (code == 0) == (err == ""), case
            if code == 2:
                assert err.startswith("error: ") and len(err) < 2000 and "\0" not in err, case
            left = sorted(path.name for path in made.rglob("*")) if made.exists() else []
            assert not any(".part" in name for name in left), (case, left)
            check_whole(made, code, left, case)
            seen.setdefault(kind.__name__, set()).add(code)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) * 1024
    assert grown < MOST_MEMORY, f"{grown:,} bytes more"
    assert seen == {name: {0, 2} for name in ("npy", "npz", "idx", "image", "model")}  # some of each could be labelled


def check_whole(made, code, left, case):
    """What a command leaves is whole, and there is something exactly if it says so."""
    if code:
        assert not left, (case, left)
        return
    assert left, case
    for name in left:
        if name == "scores.parquet":
            scores = pq.read_table(made / name).to_pandas()
            assert len(scores) and np.isfinite(scores["logit"]).all(), case
        elif name.endswith(".npy"):
            about = json.loads((made / f"{name.removesuffix('.logits.npy')}.json").read_text())
            logits = np.load(made / name)
            assert logits.shape == (about["rows"], about["columns"]) and np.isfinite(logits).all(), case


def test_damaged_inputs_are_labelled_or_answered_in_a_line(tmp_path):
    check_cases(tmp_path, SHORT, SEED)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
def test_many_damaged_inputs_are_labelled_or_answered_in_a_line(tmp_path, seed):
    check_cases(tmp_path, LONG, seed)
