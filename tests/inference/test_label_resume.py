"""What `label` scored stays when it is interrupted, and is what it would have been; what is in the way is said."""

import csv
import errno
import fcntl
import io
import json
import os
import re

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console

from d2l_study import atomic_files
from d2l_study.errors import UserError
from d2l_study.inference import image_labelling, label, score_checkpoint, sliding_window
from d2l_study.inference import inputs as inputs_module
from d2l_study.inference.image_labelling import ImageAnnotations, label_images
from d2l_study.inference.inputs import open_inputs
from d2l_study.inference.label import label_inputs
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.overlay import Places
from d2l_study.models import MilModel
from d2l_study.study.commands import label_progress
from d2l_study.study.commands.label_progress import LabelProgress

SIZE = 61, 74
PATCHES = 15 * 18
"""Of an image at stride 4."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """Several bands, batches and parts, kept at every step."""
    torch.set_num_threads(1)
    monkeypatch.setattr(sliding_window, "BAND_BYTES", 74 * 3 * 40)
    monkeypatch.setattr(sliding_window, "BATCH", 50)
    monkeypatch.setattr(inputs_module, "PART_PATCHES", 7)
    monkeypatch.setattr(score_checkpoint, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(image_labelling, "SHOWN", 60)  # small pictures are drawn faster
    monkeypatch.setattr(image_labelling, "LEAST_SHOWN", 40)


def model(seed=3, shape=(3, 17, 17)):
    network = MilModel(shape, "attention", 8, 4)
    card = ModelCard("teacher", {}, (0.5,) * shape[0], (0.2,) * shape[0], "s", "ab" * 10, 1, 0.0)
    return StoredModel(network, network.init(np.random.default_rng(seed)), card)


def pixels(seed=1):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def patches(count, seed=1):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 17, 17), dtype=np.uint8)


@pytest.fixture
def image(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def scored(monkeypatch):
    """How many patches went through the network."""
    counts = [0]

    def counting(stored, patches, compute=None):
        counts[0] += len(patches)
        return right(stored, patches, compute)

    right = label.label_instances
    for module in (sliding_window, label):
        monkeypatch.setattr(module, "label_instances", counting)
    return counts


def stops_at(most):
    """Ctrl-C as soon as so many are scored."""

    def heard(name, done, count):
        if done >= most:
            raise KeyboardInterrupt

    return heard


def maps(stored, paths, out, stride=4, truth=None, progress=None):
    return list(label_images(stored, paths, out, stride, truth, progress=progress))


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("most", [1, 120, 250, 270])
def test_a_map_that_was_interrupted_goes_on_and_is_the_same(image, tmp_path, scored, most):
    (whole,) = maps(model(), [image], tmp_path / "whole")
    assert scored[0] == PATCHES
    scored[0] = 0
    with pytest.raises(KeyboardInterrupt):
        maps(model(), [image], tmp_path / "out", progress=stops_at(most))
    before = scored[0]
    assert most <= before < most + 50 and files(tmp_path / "out") == ["a.logits.npy.part", "a.logits.npy.part.json"]
    heard = []
    (made,) = maps(model(), [image], tmp_path / "out", progress=lambda *what: heard.append(what))
    assert scored[0] == PATCHES and heard[0] == ("a", before, PATCHES) and heard[-1] == ("a", PATCHES, PATCHES)
    assert made.path.read_bytes() == whole.path.read_bytes()
    assert files(tmp_path / "out") == files(tmp_path / "whole") == ["a.json", "a.logits.npy", "a.overlay.png"]


def test_a_killed_process_loses_what_came_after_the_last_note_only(image, tmp_path, scored):
    """Nothing runs at its end: the note is older than what the file holds."""
    with pytest.raises(KeyboardInterrupt):
        maps(model(), [image], tmp_path / "out", progress=stops_at(100))
    note = tmp_path / "out/a.logits.npy.part.json"
    about = json.loads(note.read_text())
    with pytest.raises(KeyboardInterrupt):
        maps(model(), [image], tmp_path / "out", progress=stops_at(200))
    note.write_text(json.dumps(about))
    scored[0] = 0
    (made,) = maps(model(), [image], tmp_path / "out")
    assert scored[0] == PATCHES - about["done"] and 100 <= about["done"] < 200
    (whole,) = maps(model(), [image], tmp_path / "whole")
    assert made.path.read_bytes() == whole.path.read_bytes()


@pytest.mark.parametrize("change", ["model", "stride", "image", "scores", "note", "array"])
def test_what_was_scored_of_something_else_is_not_taken(image, tmp_path, scored, change):
    with pytest.raises(KeyboardInterrupt):
        maps(model(), [image], tmp_path / "out", progress=stops_at(100))
    part = tmp_path / "out/a.logits.npy.part"
    stored, stride = model(4 if change == "model" else 3), 5 if change == "stride" else 4
    if change == "image":
        Image.fromarray(pixels(2)).save(image)
    elif change == "scores":
        data = bytearray(part.read_bytes())
        data[200] ^= 1
        part.write_bytes(data)
    elif change == "note":
        part.with_name(f"{part.name}.json").write_text("[" * 100_000)
    elif change == "array":
        part.write_bytes(part.read_bytes()[:300])
    (whole,) = maps(stored, [image], tmp_path / "whole", stride)
    total, scored[0] = whole.grid.rows * whole.grid.columns, 0
    (made,) = maps(stored, [image], tmp_path / "out", stride)
    assert scored[0] == total and made.path.read_bytes() == whole.path.read_bytes()


def test_of_several_images_those_that_are_done_are_not_done_again(tmp_path, scored):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.fromarray(pixels(i)).save(path)
    truth = {
        path: ImageAnnotations(Places(np.array([[10.0, 10 + i], [40, 30]]), np.array([1, -1])))
        for i, path in enumerate(paths)
    }
    done = []

    def heard(name, count, of):
        if name == "1" and count >= 100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for made in label_images(model(), paths, tmp_path / "out", 4, truth.get, progress=heard):
            done.append(made)
    assert len(done) == 1 and "instances.csv" not in files(tmp_path / "out")
    scored[0] = 0
    again = maps(model(), paths, tmp_path / "out", 4, truth.get)
    assert [made.again for made in again] == [True, False, False] and again[0].share == done[0].share
    assert PATCHES < scored[0] <= 2 * PATCHES - 100 + 3 * 2  # the known instances of each are looked up again
    maps(model(), paths, tmp_path / "whole", 4, truth.get)
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    for name in files(tmp_path / "out"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with (tmp_path / "out/instances.csv").open() as file:
        assert [row["truth"] for row in csv.DictReader(file)] == ["1", ""] * 3


def test_a_finished_map_is_drawn_again_only_for_another_truth(image, tmp_path, scored, monkeypatch):
    drawn, draw = [], image_labelling.overlay_picture
    monkeypatch.setattr(image_labelling, "overlay_picture", lambda *a, **k: drawn.append(1) or draw(*a, **k))
    out = tmp_path / "out"
    maps(model(), [image], out)
    scored[0] = 0
    before = {name: (out / name).read_bytes() for name in files(out)}
    assert maps(model(), [image], out)[0].again and scored[0] == 0 and len(drawn) == 1
    assert before == {name: (out / name).read_bytes() for name in files(out)}
    known = ImageAnnotations(Places(np.array([[10.0, 10]]), np.array([1])), note="a test image")
    maps(model(), [image], out, truth=lambda path: known)
    assert scored[0] == 1 and len(drawn) == 2 and "instances.csv" in files(out)
    assert json.loads((out / "a.json").read_text())["part"] == "a test image"
    logits = bytearray((out / "a.logits.npy").read_bytes())
    logits[-1] ^= 1
    (out / "a.logits.npy").write_bytes(logits)
    assert not maps(model(), [image], out)[0].again


@pytest.mark.parametrize("most", [1, 20, 23])
def test_arrays_that_were_interrupted_go_on_and_give_the_same(tmp_path, scored, most):
    np.save(tmp_path / "a.npy", patches(20))
    np.save(tmp_path / "b.npy", patches(3, 2))
    inputs = open_inputs([tmp_path / "a.npy", tmp_path / "b.npy"], (3, 17, 17))
    whole = label_inputs(model(), inputs, tmp_path / "whole")
    scored[0] = 0
    with pytest.raises(KeyboardInterrupt):
        label_inputs(model(), inputs, tmp_path / "out", progress=stops_at(most))
    assert scored[0] == {1: 7, 20: 20, 23: 23}[most] and files(tmp_path / "out") == ["scores.part", "scores.part.json"]
    made = label_inputs(model(), inputs, tmp_path / "out")
    assert scored[0] == 23 and (made.count, made.positive) == (whole.count, whole.positive)
    pd.testing.assert_frame_equal(pd.read_parquet(made.path), pd.read_parquet(whole.path))
    assert files(tmp_path / "out") == ["scores.parquet"]


@pytest.mark.parametrize("changed", [0, 19])
def test_arrays_that_were_changed_meanwhile_are_scored_anew(tmp_path, scored, changed):
    values = patches(20)
    np.save(tmp_path / "a.npy", values)
    inputs = open_inputs([tmp_path / "a.npy"], (3, 17, 17))
    with pytest.raises(KeyboardInterrupt):
        label_inputs(model(), inputs, tmp_path / "out", progress=stops_at(20))
    values[changed, 0, 0, 0] ^= 255
    np.save(tmp_path / "a.npy", values)
    made = label_inputs(model(), inputs, tmp_path / "out")
    assert scored[0] == 40
    expected = label_inputs(model(), inputs, tmp_path / "whole")
    pd.testing.assert_frame_equal(pd.read_parquet(made.path), pd.read_parquet(expected.path))


def test_two_commands_do_not_write_one_file(image, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        maps(model(), [image], tmp_path / "out", progress=stops_at(100))
    with (tmp_path / "out/a.logits.npy.part").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another command is writing a\.logits\.npy"):
            maps(model(), [image], tmp_path / "out")
    assert maps(model(), [image], tmp_path / "out")


# ---- where it is written
def test_a_full_disk_is_said_before_the_work_and_leaves_nothing(image, tmp_path, monkeypatch, scored):
    def full(*where):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    np.save(tmp_path / "a.npy", patches(3))
    monkeypatch.setattr(os, "posix_fallocate", full)
    for work in (
        lambda: maps(model(), [image], tmp_path / "out"),
        lambda: label_inputs(model(), open_inputs([tmp_path / "a.npy"], (3, 17, 17)), tmp_path / "out"),
    ):
        with pytest.raises(UserError, match=r"out: no room .* with --out"):
            work()
        assert files(tmp_path / "out") == [] and scored[0] == 0
    monkeypatch.undo()
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([4096, 4096, 9, 0, 0, 9, 9, 9, 0, 255]))
    with pytest.raises(UserError, match=r"--out .*: no room for 1,080 bytes of score maps, 0 are free"):
        maps(model(), [image], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_disk_that_fills_after_the_work_keeps_the_scores(image, tmp_path, monkeypatch, scored):
    np.save(tmp_path / "a.npy", patches(20))
    inputs, out, right = open_inputs([tmp_path / "a.npy"], (3, 17, 17)), tmp_path / "out", image_labelling.write_whole

    def full(path, data):
        if path.suffix != ".json" or "logits" not in path.name:  # the notes have room
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        right(path, data)

    monkeypatch.setattr(image_labelling, "write_whole", full)
    monkeypatch.setattr(label, "atomic_write", lambda path: full(path, b""))
    for work in (lambda: maps(model(), [image], out), lambda: label_inputs(model(), inputs, out)):
        with pytest.raises(UserError, match=r"no room.* \(what was scored is kept there"):
            work()
    monkeypatch.setattr(image_labelling, "write_whole", right)
    monkeypatch.setattr(label, "atomic_write", atomic_files.atomic_write)
    scored[0] = 0
    maps(model(), [image], out)
    label_inputs(model(), inputs, out)
    assert scored[0] == 0
    assert files(out) == ["a.json", "a.logits.npy", "a.overlay.png", "scores.parquet"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b'{"image": "a.png", "nuclei": []}'), ("a.json", b"[" * 9999), ("instances.csv", b"x,y\n1,2\n"),
     ("scores.parquet", b"PAR1"), ("a.json", None), ("scores.parquet", None)],
)  # fmt: skip
def test_what_somebody_else_wrote_is_not_replaced(image, tmp_path, scored, name, content):
    out = tmp_path / "out"
    out.mkdir()
    if content is None:
        (out / name).mkdir()
    else:
        (out / name).write_bytes(content)
    np.save(tmp_path / "a.npy", patches(3))
    with pytest.raises(UserError, match=f"--out .*out: {name} is there, and"):
        if name == "scores.parquet":
            label_inputs(model(), open_inputs([tmp_path / "a.npy"], (3, 17, 17)), out)
        else:
            maps(model(), [image], out)
    assert files(out) == [name] and scored[0] == 0
    assert content is None or (out / name).read_bytes() == content


def test_what_label_wrote_is_replaced_by_other_work(image, tmp_path):
    np.save(tmp_path / "a.npy", patches(3))
    known = ImageAnnotations(Places(np.array([[10.0, 10]]), np.array([1])))
    for seed in (3, 4):
        (made,) = maps(model(seed), [image], tmp_path / "out", truth=lambda path: known)
        summary = label_inputs(model(seed), open_inputs([tmp_path / "a.npy"], (3, 17, 17)), tmp_path / "out")
        assert not made.again and summary.count == 3


def test_names_are_cut_numbered_and_written_whatever_their_bytes(tmp_path):
    (tmp_path / "other").mkdir()
    long, odd = "ä" * 125, os.fsdecode(b"\xff,\n\"'")
    paths = [tmp_path / f"{long}.png", tmp_path / "other" / f"{long}.png", tmp_path / f"{odd}.png"]
    for path in paths:
        Image.fromarray(pixels()).save(path)
    known = ImageAnnotations(Places(np.array([[10.0, 10]]), np.array([1])))
    made = maps(model(), paths, tmp_path / "out", 20, lambda path: known)
    names = [one.path.name.removesuffix(".logits.npy") for one in made]
    assert long.startswith(names[0]) and names[1].endswith("-2") and names[2] == odd
    assert all(len(os.fsencode(name)) <= 255 for name in files(tmp_path / "out"))
    with (tmp_path / "out/instances.csv").open(newline="") as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    assert sources == [str(paths[0]), str(paths[1]), str(tmp_path / "\\xff,\n\"'.png")]
    np.save(tmp_path / f"{odd}.npy", patches(2))
    summary = label_inputs(model(), open_inputs([tmp_path / f"{odd}.npy"], (3, 17, 17)), tmp_path / "out")
    assert pd.read_parquet(summary.path)["source"][0].endswith("\\xff,\n\"'.npy")


def test_more_patches_than_are_scored_are_refused_with_the_stride_that_is_enough(tmp_path, monkeypatch):
    Image.new("RGB", (900, 700)).save(tmp_path / "a.png")
    monkeypatch.setattr(image_labelling, "MOST_PATCHES", 50_000)
    words = r"a\.png: 630,000 patches at --stride 1, .*at most 50,000 .* give --stride 4 or more"
    with pytest.raises(UserError, match=words):
        maps(model(), [tmp_path / "a.png"], tmp_path / "out", 1)
    assert not (tmp_path / "out").exists()
    assert image_labelling.plan_images(model(), [tmp_path / "a.png"], tmp_path / "out", 4)


def test_scores_that_are_not_numbers_are_not_written(tmp_path):
    stored = model()
    stored.params["fc.weight"] = torch.full_like(stored.params["fc.weight"], 3e38)
    np.save(tmp_path / "a.npy", patches(3))
    with pytest.raises(UserError, match="not finite"):
        label_inputs(stored, open_inputs([tmp_path / "a.npy"], (3, 17, 17)), tmp_path / "out")
    assert files(tmp_path / "out") == []


# ---- how far it is
def heard_of(terminal):
    file = io.StringIO()
    with LabelProgress(Console(file=file, force_terminal=terminal, width=120)) as progress:
        for done in (30, 50, 100):
            progress("slide", done, 100)
        progress.say("slide: done")
    return file.getvalue()


def test_progress_is_a_bar_on_a_terminal_and_elsewhere_a_line_now_and_then(monkeypatch):
    assert "━" in heard_of(True) and "/100" in heard_of(True)
    assert heard_of(False) == "  slide: 30 of 100 patches are there already\n  slide: done\n"
    monkeypatch.setattr(label_progress, "PLAIN_SECONDS", -1.0)
    said = heard_of(False).splitlines()
    assert re.search(r"slide: 50 of 100 patches \(50%\), [\d,]+/s, under 1 s left", said[2]) and "100 of 100" in said[3]


def test_files_that_are_checked_have_a_bar_of_their_own(monkeypatch):
    monkeypatch.setattr(label_progress, "PLAIN_SECONDS", -1.0)
    for terminal in (True, False):
        file = io.StringIO()
        console = Console(file=file, force_terminal=terminal, width=120, color_system=None)
        with LabelProgress(console, "vectors") as progress:
            for done in (1, 2, 3):
                progress.checked(done, 3)
                progress._bar.refresh()
            assert progress.done == 0  # nothing is scored
            progress("scores", 50, 100)
        said = file.getvalue()
        assert ("2/3 files" in said and "50/100 vectors" in said) if terminal else (
            "checked: 2 of 3 files\n" in said and "scores: 50 of 100 vectors" in said)  # fmt: skip
