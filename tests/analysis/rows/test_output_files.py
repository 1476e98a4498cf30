"""What `--out` names is whole, or what it was before."""

import os
import subprocess
import sys
import threading

import pytest
from make_study import make_study

from analysis import cli
from analysis.rows.output_files import writing
from d2l_study.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("wrong")])
def test_a_file_that_is_not_done_is_not_there(tmp_path, error):
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("before")
    for path in (old, new):
        with pytest.raises(type(error)), writing(path) as place:
            place.write_text("half")
            raise error
    assert names(tmp_path) == ["old.csv"] and old.read_text() == "before"
    with writing(old) as place:
        place.write_text("after")
    assert old.read_text() == "after" and names(tmp_path) == ["old.csv"]


def test_a_link_stays_and_a_pipe_is_written_to_itself(tmp_path):
    target, link, pipe = tmp_path / "target.csv", tmp_path / "link.csv", tmp_path / "pipe"
    target.write_text("before")
    link.symlink_to(target)
    with writing(link) as place:
        place.write_text("after")
    assert link.is_symlink() and target.read_text() == "after"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    with writing(pipe) as place:
        place.write_text("through")
    reader.join(10)
    assert read == ["through"] and pipe.is_fifo()


def test_a_table_is_written_to_the_standard_output_where_that_is_a_pipe(tmp_path):
    make_study(tmp_path)
    words = ["tables", "made", "--format", "csv", "--out", "/dev/stdout", "--root", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "analysis", *words], capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) > 3 and "wrote /dev/stdout" in done.stdout


def test_what_the_file_system_refuses_is_said(tmp_path):
    with pytest.raises(UserError, match=r"--out .*a\.csv: cannot write there: "), writing(tmp_path / "a.csv"):
        raise OSError(28, "No space left on device")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [["tables", "made", "--format", "latex"], ["figure", "made"], ["export", "made"], ["report", "made"]],
    ids=lambda words: words[0],
)
def test_a_command_that_is_stopped_while_it_writes_leaves_what_was_there(words, tmp_path, monkeypatch, capsys):
    make_study(tmp_path)
    ending = {"tables": "tex", "figure": "svg", "export": "csv", "report": "html"}[words[0]]
    out = tmp_path / "out" / f"file.{ending}"
    out.parent.mkdir()
    out.write_text("before")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", stopped)  # the last step, with all written
    assert cli.main([*words, "--out", str(out), "--root", str(tmp_path)]) == 130
    assert names(out.parent) == [out.name] and out.read_text() == "before"
    monkeypatch.undo()
    assert cli.main([*words, "--out", str(out), "--root", str(tmp_path)]) == 0
    assert names(out.parent) == [out.name] and len(out.read_text()) > 100
    capsys.readouterr()
