"""`tile` on folders, files and tables of slides: what it writes, what it does again, and what it says of bad slides."""

import csv
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from slides.make_slides import aperio_slide, cut_short, generic_slide, ome_slide, openslide_file, reduced, tissue

from d2l_study import cli
from d2l_study.slides import packages
from d2l_study.slides.tile_file import read_tiles

WANTED = ["--mpp", "0.5", "--size", "64"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two slides of the same tissue at 40× and at 20×, and one of glass."""
    folder = tmp_path_factory.mktemp("drawn")
    pixels = tissue(3200, 2400)
    aperio_slide(folder / "forty.svs", pixels, mpp=0.25, tile=256)
    ome_slide(folder / "zwanzig ö.ome.tif", reduced(pixels, 2), mpp=0.5, tile=256)
    aperio_slide(folder / "glass.svs", np.full((1000, 1400, 3), 243, np.uint8))
    return folder


@pytest.fixture
def cohort(drawn, tmp_path):
    """A copy of the test's own."""
    return shutil.copytree(drawn, tmp_path / "cohort")


def tile(*words):
    return cli.main(["tile", *map(str, words)])


def table(out):
    with (out / "tiles.csv").open(newline="", encoding="utf-8") as file:
        return {row["slide"]: row for row in csv.DictReader(file)}


def files(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def times(out):
    return {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*.*")) if path.suffix in (".h5", ".png")}


def test_a_folder_of_slides(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    assert tile(cohort, *WANTED, "--out", out) == 0
    assert files(out) == [
        "patches/forty_patches.h5", "patches/glass_patches.h5", "patches/zwanzig ö.ome_patches.h5",
        "pictures/forty.png", "pictures/glass.png", "pictures/zwanzig ö.ome.png", "tile_settings.json", "tiles.csv",
    ]  # fmt: skip
    forty, twenty = (read_tiles(out / "patches" / f"{name}_patches.h5") for name in ("forty", "zwanzig ö.ome"))
    assert (forty.side, twenty.side) == ((128, 128), (64, 64)) and len(forty) > 80
    common = {tuple(xy) for xy in (forty.xy // 2).tolist()} ^ {tuple(xy) for xy in twenty.xy.tolist()}
    assert len(common) <= 2
    assert read_tiles(out / "patches" / "glass_patches.h5").xy.shape == (0, 2)
    rows = table(out)
    assert list(rows) == ["forty", "glass", "zwanzig ö.ome"]
    assert rows["forty"] == {
        "slide": "forty", "path": str(cohort / "forty.svs"), "file": "patches/forty_patches.h5", "width": "3200",
        "height": "2400", "mpp": "0.25", "magnification": "40", "tiles": str(len(forty)),
        "tissue_share": rows["forty"]["tissue_share"], "status": "tiled", "reason": "",
    }  # fmt: skip
    stained = (tissue(3200, 2400) != (244, 242, 244)).any(axis=2).mean()
    assert float(rows["forty"]["tissue_share"]) == pytest.approx(stained, abs=0.01)
    assert (rows["glass"]["status"], rows["glass"]["tiles"], rows["glass"]["reason"]) == (
        "empty",
        "0",
        "no tissue found",
    )
    said = capsys.readouterr().out
    assert "glass.svs: 0 tiles, 0.0% tissue (no tissue found)" in said
    assert f"tiles:    {len(forty) + len(twenty):,} of 64 px at 0.5 µm per pixel (20×)" in said
    assert "slides:   2 with tiles, 1 without\n" in said
    with Image.open(out / "pictures" / "forty.png") as picture:
        assert picture.width == 1600


@pytest.mark.slow
def test_what_is_there_is_not_made_again_and_what_has_changed_is(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    assert tile(cohort, *WANTED, "--out", out) == 0
    before, rows = times(out), table(out)
    capsys.readouterr()
    assert tile(cohort, *WANTED, "--out", out) == 0
    said = capsys.readouterr().out
    assert times(out) == before and table(out) == rows
    assert "2 with tiles, 1 without, 3 of these were there" in said and "forty.svs:" not in said
    damaged = out / "patches" / "forty_patches.h5"
    cut_short(damaged)
    (out / "pictures" / "glass.png").unlink()
    aperio_slide(cohort / "zwanzig ö.ome.tif", tissue(1000, 800), mpp=0.5)
    assert tile(cohort, *WANTED, "--out", out) == 0
    said = capsys.readouterr().out
    assert "were there" not in said and len(read_tiles(damaged)) == int(rows["forty"]["tiles"])
    assert files(out) == sorted(files(out)) and len(files(out)) == 8
    assert table(out)["zwanzig ö.ome"]["width"] == "1000"


def test_other_settings_in_the_same_folder_are_refused(cohort, tmp_path, capsys):
    out = tmp_path / "out"
    assert tile(cohort / "forty.svs", *WANTED, "--out", out) == 0
    before = times(out)
    capsys.readouterr()
    for words, said in (
        (["--mpp", "1", "--size", "64"], "mpp 0.5 (now 1.0)"),
        ([*WANTED, "--overlap", "8"], "overlap 0 (now 8)"),
        ([*WANTED, "--no-tissue"], "tissue True (now False)"),
        ([*WANTED, "--least-tissue", "0.1"], "least_tissue 0.5 (now 0.1)"),
    ):
        assert tile(cohort, *words, "--out", out) == 2
        assert f"--out {out}: holds tiles of other settings: {said}; name another" in capsys.readouterr().err
    assert times(out) == before
    assert tile(cohort / "glass.svs", *WANTED, "--out", out) == 0  # more slides are welcome, the table has all
    assert sorted(table(out)) == ["forty", "glass"]


def test_a_bad_slide_is_named_and_passed_over(cohort, tmp_path, capsys):
    cut_short(generic_slide(cohort / "broken.tif", tissue(2000, 1500)))
    (cohort / "text.svs").write_text("no slide")
    openslide_file(cohort, "small.svs")
    out = tmp_path / "out"
    assert tile(cohort, *WANTED, "--out", out) == 1
    rows = table(out)
    assert {name: row["status"] for name, row in rows.items()} == {
        "broken": "failed", "forty": "tiled", "glass": "empty", "small": "empty", "text": "failed",
        "zwanzig ö.ome": "tiled",
    }  # fmt: skip
    assert "expected a whole file" in rows["broken"]["reason"] and rows["broken"]["tiles"] == ""
    assert rows["small"]["reason"].startswith("16×16 pixels, smaller than a tile")
    said = capsys.readouterr().out
    assert "broken.tif: failed: cannot be read" in said and "2 with tiles, 2 without, 2 failed" in said
    assert "broken" not in " ".join(name for name in files(out) if name.endswith((".h5", ".png")))


def test_resolutions_that_are_missing_or_wrong(tmp_path, capsys):
    pixels = tissue(1600, 1200)
    generic_slide(tmp_path / "silent.tif", pixels, mpp=None)
    aperio_slide(tmp_path / "wrong.svs", pixels, mpp=0.5)
    aperio_slide(tmp_path / "right.svs", pixels, mpp=0.25)
    slides = [tmp_path / name for name in ("silent.tif", "wrong.svs", "right.svs")]
    out = tmp_path / "out"
    assert tile(*slides, *WANTED, "--out", out) == 1
    assert "--slide-mpp, or a column mpp of the table" in table(out)["silent"]["reason"]
    capsys.readouterr()
    assert tile(*slides, *WANTED, "--slide-mpp", "0.25", "--out", out) == 0
    said = capsys.readouterr().out
    assert "2 of these were there" in said  # those that say their own
    assert "--slide-mpp is not used for wrong.svs, which says another one; a column mpp of a table corrects it" in said
    rows = table(out)
    assert [rows[name]["mpp"] for name in ("silent", "wrong", "right")] == ["0.25", "0.5", "0.25"]
    (tmp_path / "slides.csv").write_text("slide_id;mpp\nsilent;0.25\nwrong.svs;0.25\nright;\n")
    assert tile(tmp_path / "slides.csv", *WANTED, "--out", tmp_path / "again") == 0
    rows = table(tmp_path / "again")
    assert {row["mpp"] for row in rows.values()} == {"0.25"} and len({row["tiles"] for row in rows.values()}) == 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("path,mpp\na.svs,0\n", "row 2, column mpp: '0' is no resolution; expected µm per pixel, such as 0.25"),
        ("path;mpp\na.svs;0,25\n", "decimals are written with a point"),
        ("path\nb.svs\n", "row 2, column path: 'b.svs': no such file"),
        ("path,mpp\na.svs,0.25\na.svs,0.5\n", "row 3, column mpp: 'a.svs' has another one in row 2"),
        ("path\n", "no rows below the header"),
        ("label\n1\n", "no column path"),
        ("path\na\n\nb,c\n", "row 4: 2 values"),
    ],
)
def test_wrong_tables_are_answered_before_work(rows, said, tmp_path, capsys):
    aperio_slide(tmp_path / "a.svs", tissue(400, 300))
    (tmp_path / "slides.csv").write_text(rows)
    assert tile(tmp_path / "slides.csv", *WANTED, "--out", tmp_path / "out") == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_wrong_commands_are_answered_in_a_line(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    (tmp_path / "file").write_text("x")
    slide = aperio_slide(tmp_path / "a.svs", tissue(400, 300))
    (tmp_path / "b").mkdir()
    aperio_slide(tmp_path / "b" / "a.svs", tissue(400, 300))
    out = ["--out", tmp_path / "out"]
    cases = [
        ([*WANTED, *out], "SLIDE is missing"),
        ([slide, "--size", 9, *out], "--mpp is missing"),
        ([slide, *WANTED], "--out is missing"),
        ([slide, "--mpp", "0.5", "--size", "0", *out], "--size: '0' is not allowed; expected a whole number from 1"),
        ([slide, "--mpp", "-1", "--size", "9", *out], "expected µm per pixel from 0.01 to 100"),
        ([slide, "--mpp", "nan", "--size", "9", *out], "expected µm per pixel"),
        ([slide, "--mpp", "0,5", "--size", "9", *out], "decimals are written with a point"),
        ([slide, *WANTED, "--overlap", "64", *out], "--overlap 64: expected less than the 64 pixels"),
        ([slide, *WANTED, "--least-tissue", "2", *out], "expected a share from 0 to 1"),
        ([slide, *WANTED, "--no-tissue", "--least-tissue", "0", *out], "does nothing with --no-tissue"),
        ([slide, *WANTED, "--slide-mpp", "0", *out], "--slide-mpp: '0' is not allowed"),
        ([slide, *WANTED, "--out", tmp_path / "file"], "it is a file; expected a folder"),
        ([tmp_path / "none", *WANTED, *out], "no slide in this folder"),
        ([tmp_path / "a.sv", *WANTED, *out], "no such file or folder"),
        ([slide, tmp_path / "b", *WANTED, *out], "are both called 'a'"),
        ([slide, *WANTED, "--tisue", *out], "did you mean '--tissue'?"),
    ]  # fmt: skip
    for words, said in cases:
        assert tile(*words) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and said in err, err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_the_line_that_installs_it_is_said_once(cohort, tmp_path, monkeypatch, capsys):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(packages.importlib, "import_module", missing)
    assert tile(cohort, *WANTED, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        f"error: {cohort}/forty.svs: finding tissue needs `pip install 'd2l-study[wsi]'`\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_slide_named_twice_is_tiled_once(cohort, tmp_path, capsys):
    assert tile(cohort, cohort / "forty.svs", *WANTED, "--out", tmp_path / "out") == 0
    assert "2 with tiles, 1 without\n" in capsys.readouterr().out


def test_all_tiles_without_tissue(cohort, tmp_path):
    assert tile(cohort / "glass.svs", "--mpp", "0.5", "--size", "100", "--no-tissue", "--out", tmp_path) == 0
    row = table(tmp_path)["glass"]
    assert (row["tiles"], row["tissue_share"], row["status"]) == ("35", "", "tiled")


def test_a_slide_coarser_than_its_tiles_is_refused(cohort, tmp_path):
    assert tile(cohort, "--mpp", "0.25", "--size", "64", "--out", tmp_path / "out") == 1
    row = table(tmp_path / "out")["zwanzig ö.ome"]
    assert row["reason"] == "its pixels are 0.5 µm, too coarse for patches at 0.25 µm; expected at most 0.3125 µm"


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done_and_the_same_command_goes_on(tmp_path, capsys):
    folder, out = tmp_path / "slides", tmp_path / "out"
    folder.mkdir()
    first = aperio_slide(folder / "s00.svs", tissue(1000, 800))
    for i in range(1, 12):
        os.link(first, folder / f"s{i:02}.svs")
    words = [sys.executable, "-m", "d2l_study", "tile", str(folder), *WANTED, "--out", str(out)]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which background jobs of scripts ignore
    )  # fmt: skip
    assert "s00.svs" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in err
    assert "done and kept" in err and "the same command goes on from there" in err
    kept = len(times(out)) // 2
    assert 0 < kept < 12 and not list(out.rglob("*.part")) and len(table(out)) <= kept
    assert tile(folder, *WANTED, "--out", out) == 0
    assert "of these were there" in capsys.readouterr().out and len(table(out)) == 12
