"""LaTeX tables are escaped and balanced, and compile with booktabs; the latter is skipped where there is no LaTeX."""

import re
import shutil
import subprocess

import pytest
from make_folds import make_folds
from make_rows import make_rows
from make_study import make_distillation, make_study

import analysis
from analysis.tables.latex_text import beyond_ascii, escape_latex
from analysis.tables.study_table import render, table

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


def test_latex_is_escaped_and_balanced():
    rows = make_rows([
        ({"method": "none", "num_bags": 50}, [0.80, 0.81, 0.82, 0.83]),
        ({"method": "a_b & 50% {x}~^\\#$", "num_bags": 50}, [0.90, 0.91, 0.92, 0.93]),
        ({"method": "none", "num_bags": 100, "mean_bag_size": 50}, [0.95]),
    ])  # fmt: skip
    text = render(rows, format="latex")
    body = text[text.index(r"\begin{tabular}") :]
    bare = re.sub(r"\\[\\&%$#_{}]", "", body)
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    for line in body.splitlines():
        if line.endswith(r"\\") and not line.startswith(r"\multicolumn"):
            assert len(re.findall(r"(?<!\\)&", line)) == 2
    assert r"\multicolumn{3}{l}{$K = 50$}" in body
    assert r"a\_b \& 50\% \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}\#\$" in body
    for command in (r"\toprule", r"\midrule", r"\bottomrule", r"\textbf{0.915}", r"$\pm$", "(1 of 4)"):
        assert command in body
    assert text.isascii()


def test_escape_latex_leaves_words_alone():
    assert escape_latex("plain words, 0.95") == "plain words, 0.95"
    assert escape_latex("95 %") == r"95 \%"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("naïve modèle", r"na\"{\i}ve mod\`{e}le"),
        ("e\u0301 Ångström, Łódź", r"\'{e} \r{A}ngstr\"{o}m, \L{}\'{o}d\'{z}"),
        ("0.5 µm, 0.5 μm", r"0.5 $\mu$m, 0.5 $\mu$m"),
        ("Σ-net of φ, ψ and Α", r"$\Sigma$-net of $\varphi$, $\psi$ and $\mathrm{A}$"),
        ("10⁻³, H₂O, ¼", r"10$^{-}$$^{3}$, H$_{2}$O, $\frac{1}{4}$"),
        ("x ≠ y, 5 % ‘to’ ﬁt™", r"x $\neq$ y, 5 \% `to' fit$^{\mathrm{TM}}$"),
    ],
)
def test_letters_and_signs_that_latex_has_commands_for_are_written_as_them(text, written):
    assert escape_latex(text) == written and not beyond_ascii(written)


def test_every_greek_letter_has_its_command():
    for base in range(ord("α"), ord("ω") + 1):
        for letter in {chr(base), chr(base).upper()}:
            made = escape_latex(letter)
            assert made.isascii() and made.startswith("$") and made != "$?$", letter


def test_letters_that_latex_has_no_command_for_stay_and_are_named():
    arms = [({"method": name, "num_bags": 50}, [0.8, 0.9]) for name in ("注意", "学习", "naïve")]
    rows = make_rows(arms, replicates=2)
    first, *lines = render(rows, format="latex").splitlines()
    assert first.startswith("% beyond ASCII: 注 意 学 习; needs XeLaTeX or LuaLaTeX and a font that has them")
    heads = [line.partition(" & ")[0] for line in lines if line.endswith(r"\\")]
    assert [head for head in heads if head in ("注意", "学习", r"na\"{\i}ve")] == ["注意", "学习", r"na\"{\i}ve"]
    assert beyond_ascii("a\u200bb q\u0328") == ["U+200B", "q\u0328"]


def test_captions_of_the_tables_are_ascii(tmp_path):
    make_folds(tmp_path, "tiled", images=12, folds=3, repeats=1, tiles=True)
    text = table(analysis.load("tiled", tmp_path)).text("latex")
    assert "FROC: mean sensitivity" in text and r"$\frac{1}{4}$, $\frac{1}{2}$, 1, 2" in text.replace("~", " ")
    assert text.isascii() and "?" not in text


def test_a_row_that_begins_with_what_a_line_break_would_take_for_its_own():
    arms = [({"method": name, "num_bags": 50}, [0.8, 0.9]) for name in ("[12] Ilse", "*ours")]
    rows = make_rows(arms, replicates=2)
    lines = render(rows, format="latex").splitlines()
    assert any(line.startswith("{}[12] Ilse &") for line in lines) and any(
        line.startswith("{}*ours &") for line in lines
    )
    assert not any(line.startswith(("[", "*")) for line in lines)
