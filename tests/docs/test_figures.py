"""The figures of the documentation are what the records say: drawn again they are the same, and their numbers are those
that the records' texts give."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from analysis.cells.differences import OF_STUDENTS, TO_POOLED

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
sys.path.insert(0, str(ROOT / "benchmarks" / "figures"))  # as `python benchmarks/figures` has it

import gpu_and_cpu  # noqa: E402
import overview  # noqa: E402
import student_gains  # noqa: E402
import vat  # noqa: E402


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("figures")
    command = [sys.executable, "-W", "ignore", "benchmarks/figures", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def entries() -> list[student_gains.Entry]:
    return list(student_gains._entries())


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_the_kept_figures_are_those_that_the_command_draws(drawn):
    kept = {path.name for path in FIGURES.iterdir()}
    assert kept == {path.name for path in drawn.iterdir()} and len(kept) == 5
    for name in kept:
        if name.endswith(".svg"):
            assert (drawn / name).read_bytes() == (FIGURES / name).read_bytes(), f"{name}: make figures"
        else:
            with Image.open(drawn / name) as new, Image.open(FIGURES / name) as old:
                assert np.array_equal(new.convert("RGB"), old.convert("RGB")), f"{name}: make figures"


def test_every_kept_figure_is_on_a_page():
    pages = "\n".join(path.read_text(encoding="utf-8") for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
    for path in FIGURES.iterdir():
        assert re.search(rf"!\[[^\]]+\]\((?:docs/)?figures/{path.name}\)", pages), path.name


def test_rows_of_students_say_what_they_compare_without_their_colour(entries):
    names = [(one.group, one.name) for one in entries]
    assert len(names) == len(set(names)) > 15
    for kind, (said, _) in student_gains.NAMES.items():
        assert {one.kind for one in entries if said in one.name} == {kind}


def test_the_hardest_comparisons_of_students_stand_first(entries):
    order = [kind for kind in OF_STUDENTS if kind != TO_POOLED]  # which is about bags
    assert order == list(student_gains.MARKS)
    for group in {one.group for one in entries}:
        places = [order.index(one.kind) for one in entries if one.group == group]
        assert places == sorted(places)
    assert entries[0].kind == student_gains.TO_MATCHED and entries[-1].kind == student_gains.TO_TEACHER
    note = " ".join(student_gains.draw().get_supxlabel().split())
    assert "Not drawn, since it is far beyond: MNIST digits − no teacher, +0.32 to +0.36." in note


def test_series_of_the_figure_of_vat_differ_in_shape_and_are_named():
    marks = [*(mark for _, mark in vat.ARMS.values()), *vat.OTHERS]
    assert len({(mark["marker"], "markerfacecolor" in mark) for mark in marks}) == len(marks)
    figure = vat.draw()
    names = [text.get_text() for axis in figure.axes if axis.get_legend() for text in axis.get_legend().get_texts()]
    note = figure.get_supxlabel().replace("\n", " ").replace("- ", "-")
    others = re.findall(r"(2026-[-\w]+), \d+ replicates", note)
    assert len(others) == len(vat.OTHERS) and set(others) <= set(names)
    assert not re.search(r"orange|green|pink|yellow|blue|black|red", note)


def test_the_overview_shows_the_auc_of_digits_of_a_confirmatory_record_and_names_it():
    text = (ROOT / "benchmarks" / "records" / overview.STUDY / "README.md").read_text(encoding="utf-8")
    found = overview.curves()
    for arm, row in (("none", "none, instance AUC"), ("vat", "vat")):
        means = " | ".join(f"{interval.mean:.3f}" for _, interval in found[arm])
        assert f"| {row} | {means} |" in text
        assert [(column.value, interval.count) for column, interval in found[arm]] == [(50, 20), (100, 20), (200, 20)]
    small_print = " ".join(one.get_text() for one in overview.draw().texts)
    assert f"20 replicates, equal steps, record {overview.STUDY}." in small_print and "gpu-k10" not in small_print


def test_bars_of_gpu_and_cpu_differ_in_grey():
    grey = [np.dot(to_rgb(look["color"]), (0.299, 0.587, 0.114)) for _, look in gpu_and_cpu.BARS.values()
            if "hatch" not in look]  # fmt: skip
    assert len(grey) == len(gpu_and_cpu.BARS) - 1
    assert min(np.diff(sorted(grey))) > 0.15


def test_differences_of_students_are_those_of_the_records(entries):
    def shown(group: str, kind: str = student_gains.TO_TEACHER) -> list[tuple[str, int]]:
        return [(f"{one.found.mean:+.3f} ± {one.found.half_width:.3f}", one.found.count)
                for one in entries if one.group.startswith(group) and one.kind == kind]  # fmt: skip

    assert shown("MNIST digits, settings of version 1")[:2] == [("+0.037 ± 0.027", 20), ("+0.031 ± 0.029", 20)]
    matched = shown("MNIST digits, robust recipe", student_gains.TO_MATCHED)
    assert matched == [("+0.015 ± 0.006", 20), ("+0.005 ± 0.006", 20), ("+0.005 ± 0.001", 20), ("+0.001 ± 0.001", 20)]
    assert shown("Nuclei as patches, first study") == [("+0.022 ± 0.015", 20)]
    patches = ["+0.019 ± 0.021", "+0.015 ± 0.021", "+0.023 ± 0.016", "+0.006 ± 0.012", "+0.015 ± 0.012"]
    assert [shown("Nuclei as patches, AUC", kind) for kind in student_gains.MARKS] == [[(text, 50)] for text in patches]
    assert shown("Nuclei as patches, ten folds", student_gains.TO_MATCHED) == [("+0.020 ± 0.034", 10)]
    assert shown("Nuclei as vectors, first study") == [("+0.035 ± 0.012", 50), ("+0.031 ± 0.010", 50)]
    for kind, numbers in (
        (student_gains.TO_MATCHED, ["+0.037 ± 0.013", "+0.030 ± 0.014"]),
        (student_gains.TO_SMOOTHED, ["+0.012 ± 0.012", "+0.005 ± 0.014"]),
        (student_gains.TO_NO_TEACHER, ["+0.019 ± 0.021", "+0.024 ± 0.021"]),
    ):
        assert shown("Nuclei as vectors, AUC", kind) == [(text, 50) for text in numbers]
    without = shown("MNIST digits, soft labels", student_gains.TO_NO_SOFT_LABELS)
    assert without == [("-0.005 ± 0.002", 20), ("-0.003 ± 0.001", 20), ("-0.002 ± 0.001", 20), ("-0.000 ± 0.001", 20)]
    without = shown("Nuclei as vectors, soft labels", student_gains.TO_NO_SOFT_LABELS)
    assert without == [("+0.022 ± 0.016", 50)]


def test_effects_of_vat_are_those_of_the_record_at_each_k_that_has_both_arms():
    parts = vat.with_vat("2026-11-27-vat-grid-gpu")
    assert [(part.panel.value, part.arms) for part in parts] == [
        (size, ("adv_low", "adv_high")) for size in (10, 50, 100)
    ]  # fmt: skip
    for part, low, high in zip(
        parts,
        ("+0.0051 ± 0.0023", "+0.0017 ± 0.0011", "+0.0001 ± 0.0007"),
        ("+0.0047 ± 0.0020", "−0.0015 ± 0.0040", "−0.0005 ± 0.0012"),
        strict=True,
    ):
        shown = {
            arm: [f"{one.mean:+.4f} ± {one.half_width:.4f}" for _, one in vat.effects(part, arm)] for arm in part.arms
        }
        assert shown["adv_low"][-1] == low and shown["adv_high"][-1] == high.replace("−", "-")
        text = (ROOT / "benchmarks" / "records" / part.record / "README.md").read_text(encoding="utf-8")
        assert low in text and high in text
