"""LaTeX tables compile, with booktabs, whatever the study; skipped where there is no LaTeX."""

import shutil
import subprocess

import pytest
from make_folds import make_folds
from make_study import make_distillation, make_study

import analysis
from analysis.tables.study_table import table

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}\usepackage{graphicx}\usepackage{longtable}
\begin{document}
%s
\end{document}
"""
ENGINE = shutil.which("pdflatex") or shutil.which("tectonic")


@pytest.mark.skipif(ENGINE is None, reason="no pdflatex or tectonic here to compile a table with")
def test_tables_compile_and_fit_the_line(tmp_path):
    make_study(tmp_path, failed=((0, 1),), missing=((3, 0),))
    make_study(tmp_path, "long", methods=tuple(f"arm_{i}%&#_^~" for i in range(50)), num_bags=(50,), bag_sizes=(10,),
               replicates=2)  # fmt: skip
    make_distillation(tmp_path)
    make_folds(tmp_path)
    parts = [table(analysis.load(name, tmp_path), with_published=True).text("latex")
             for name in ("made", "long", "distilled", "folded")]  # fmt: skip
    parts.append(analysis.compare(analysis.load("made", tmp_path)).text("latex"))
    (tmp_path / "all.tex").write_text(DOCUMENT % "\n\\clearpage\n".join(parts))
    stops = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in ENGINE else []
    done = subprocess.run([ENGINE, *stops, "all.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
    wide = [line for line in done.stdout.splitlines() if line.startswith("Overfull \\hbox")]
    assert all(float(line.split("(")[1].split("pt")[0]) < 15 for line in wide), wide


@pytest.mark.skipif(ENGINE is None, reason="no pdflatex or tectonic here to compile a table with")
def test_booktabs_alone_is_enough_for_a_wide_table(tmp_path):
    make_study(tmp_path)
    text = table(analysis.load("made", tmp_path)).text("latex")
    assert r"\resizebox" in text
    (tmp_path / "one.tex").write_text(DOCUMENT.replace(r"\usepackage{graphicx}\usepackage{longtable}", "") % text)
    stops = ["-interaction=nonstopmode", "-halt-on-error"] if "pdflatex" in ENGINE else []
    done = subprocess.run([ENGINE, *stops, "one.tex"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
