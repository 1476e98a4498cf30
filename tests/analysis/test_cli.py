"""`python -m analysis` as a user meets it: output, exit codes, errors in one line, nothing heavy imported."""

import subprocess
import sys

import pandas as pd
import pytest
from make_study import make_distillation, make_study

from analysis.cli import main


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), missing=((1, 0),))
    return str(root)


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "analysis", *arguments], capture_output=True, text=True, **options)


def test_tables_prints_and_writes(root, tmp_path, capsys):
    assert main(["tables", "made", "--root", root]) == 0
    printed = capsys.readouterr().out
    assert "| vat − none |" in printed
    assert "(4 of 5)" in printed
    out = tmp_path / "table.md"
    assert main(["tables", f"{root}/studies/made", "--out", str(out)]) == 0
    short, _, rest = printed.rpartition("\n\n")
    assert out.read_text().startswith(short) and "--explain" in rest
    assert main(["tables", "made", "--root", root, "--explain"]) == 0
    assert capsys.readouterr().out.endswith(out.read_text()), "a file has all that --explain prints"
    for name, start in (("table.tex", "% needs"), ("table.csv", "study,metric")):
        assert main(["tables", "made", "--root", root, "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().startswith(start)


def test_axes_and_metric_are_the_users_choice(root, capsys):
    arguments = ["--rows", "num_bags", "--columns", "method", "--panel", "none", "--metric", "instance_auc"]
    assert main(["tables", "made", "--root", root, *arguments]) == 0
    printed = capsys.readouterr().out
    assert "n = 100" in printed
    assert "instance AUC" in printed
    assert "K = 10" not in printed


def test_a_study_of_students_shows_its_instance_auc_and_its_pairs(tmp_path, capsys):
    make_distillation(tmp_path, num_bags=(50,), references=(), replicates=2)
    at = ["distilled", "--root", str(tmp_path)]
    assert main(["tables", *at]) == 0
    assert capsys.readouterr().out.startswith("**distilled: instance AUC (test)**")
    assert main(["tables", *at, "--metric", "bag_auc"]) == 0
    assert capsys.readouterr().out.startswith("**distilled: bag AUC (test)**")
    for kind in ("curves", "pairs"):
        assert main(["figure", *at, "--kind", kind, "--out", str(tmp_path / f"{kind}.svg")]) == 0
    assert (tmp_path / "curves.svg").read_bytes() != (tmp_path / "pairs.svg").read_bytes()
    capsys.readouterr()
    assert main(["figure", *at, "--kind", "pairs", "--scale", "logit", "--out", str(tmp_path / "a.svg")]) == 2
    assert "--scale logit" in capsys.readouterr().err


def test_figure_and_export_write_their_files(root, tmp_path, capsys):
    assert main(["figure", "made", "--root", root, "--out", str(tmp_path / "a.png"), "--scale", "logit"]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert main(["export", "made", "--root", root, "--out", str(tmp_path / "a.parquet")]) == 0
    assert len(pd.read_parquet(tmp_path / "a.parquet")) == 20
    assert "(20 rows)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["tabels", "made"], ["tabels", "did you mean 'tables'"]),
        (["tables", "made", "--fromat", "csv"], ["--fromat", "did you mean '--format'"]),
        (["tables", "made", "--format", "latx"], ["latx", "did you mean 'latex'"]),
        (["tables", "made", "--metric", "bag_acu"], ["bag_acu", "did you mean 'bag_auc'"]),
        (
            ["figure", "made", "--metric", "bag_auc,bag_ap", "--out", "f.png"],
            ["bag_auc,bag_ap: a figure shows one"],
        ),
        (["tables", "mad"], ["'mad'", "did you mean 'made'"]),
        (["tables", "made", "mad"], ["'mad'", "did you mean 'made'"]),
        (["figure", "made", "--out", "a.jpg"], [".jpg", ".png, .svg, .pdf"]),
        (["figure", "made"], ["--out"]),
        (["figure", "made", "--kind", "pair", "--out", "a.png"], ["pair", "did you mean 'pairs'"]),
        (["figure", "made", "--kind", "pairs", "--out", "a.png"], ["no finished student beside its teacher"]),
        (["figure", "made", "--panel", "colour", "--out", "a.png"], ["--panel colour"]),
        (
            ["figure", "made", "--kind", "roc", "--panel", "method", "--out", "a.png"],
            ["--panel method", "curves, pairs"],
        ),
        (["figure", "a.csv", "--kind", "best", "--out", "a.png"], ["a.csv: this needs a study's folder"]),
        (["figure", "made", "--kind", "best", "--tracking-uri", "http://h", "--out", "a.png"], ["--tracking-uri"]),
        (["tables", "mlflow:#made"], ["mlflow:#made: names no store", "mlflow:URI#NAME"]),
        (["tables", "made", "--tracking-uri", "sqlite:///none.db"], ["there is no file", "none.db"]),
        (["tables", "made", "--out", "."], ["--out .: this is a folder"]),
        (
            ["tables", "made", "--out", "t.CSV", "--format", "latex"],
            ["--out t.CSV: ends as csv, and --format is latex; expected --format csv, or a name that ends in .tex"],
        ),
        (
            ["compare", "made", "--baseline", "a=b", "--out", "t.md", "--format", "html"],
            ["ends as markdown"],
        ),
        (["export", "made", "--out", "a.xlsx"], [".xlsx", ".parquet, .csv"]),
    ],
)
def test_errors_name_what_is_wrong_in_one_line_and_exit_with_2(root, arguments, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, *(["--root", root] if len(arguments) > 1 else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["tables", "made", "--root", root, "--out", str(tmp_path / "file" / "table.md")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_module_run_returns_the_exit_code(root):
    done = run("tables", "mad", "--root", root)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error(root):
    command = [sys.executable, "-m", "analysis", "tables", "made", "--root", root]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        message = process.stderr.read()
    assert message == b""
    assert process.returncode == 141


def test_help_is_answered_without_heavy_imports_and_nothing_ever_needs_the_training_stack(root, tmp_path):
    script = """
import sys
from analysis.cli import main
try:
    main(sys.argv[2:])
except SystemExit:
    pass
print(sorted(set(sys.argv[1].split(",")) & sys.modules.keys()), file=sys.stderr)
"""
    heavy = "pandas,numpy,scipy,matplotlib,ray,torch,mlflow,optuna"
    helped = subprocess.run([sys.executable, "-c", script, heavy, "tables", "--help"], capture_output=True, text=True)
    assert helped.stderr.strip() == "[]"
    assert "--metric" in helped.stdout
    training = "ray,torch,mlflow,optuna"
    for arguments in (["tables", "made"], ["figure", "made", "--out", "a.svg"], ["export", "made", "--out", "a.csv"]):
        command = [sys.executable, "-c", script, training, *arguments, "--root", root]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.stderr.strip() == "[]"
        assert done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["tables", "--metric", ","], ["tables", "--metric", ""], ["tables", "--metric", " , ", "--metric", ","],
        ["compare", "--metric", ","], ["compare", "--metric", ",", "--test", "delong"],
        ["figure", "--metric", "", "--out", "f.png"],
        ["figure", "--kind", "learning", "--metric", "", "--out", "f.png"],
        ["tables", "--rows", ""], ["tables", "--columns", ""], ["tables", "--panel", ""], ["compare", "--baseline", ""],
        ["figure", "--where", "", "--out", "f.png"], ["tables", "--label", ""],
        ["figure", "--kind", "heatmap", "--rows", "", "--out", "f.png"],
        ["compare", "--test", "delong", "--replicate", ""], ["compare", "--test", "delong", "--replicate", ","],
    ],
)  # fmt: skip
def test_options_that_name_nothing_are_a_line(made, arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([arguments[0], "made", "--root", str(made), *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    option = next(one for one in arguments if one.startswith("--") and one not in ("--kind", "--test"))
    assert option in error


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), replicates=2, with_predictions=True)
    return root


def test_several_metrics_may_be_set_apart_by_spaces(made, capsys):
    assert main(["tables", "made", "--root", str(made), "--metric", "bag_auc, instance_auc,"]) == 0
    assert capsys.readouterr().out.count("level") >= 2


@pytest.mark.parametrize("name", ["t.csv", "t.txt", "t"])
def test_a_format_goes_with_its_own_ending_and_with_those_of_no_format(root, name, tmp_path):
    words = ["tables", "made", "--root", root, "--format", "csv", "--out", str(tmp_path / name)]
    assert main(words) == 0 and "method" in (tmp_path / name).read_text()
