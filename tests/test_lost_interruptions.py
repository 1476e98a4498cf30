"""A Ctrl-C that comes while Python runs a callback that no exception can leave ends a command all the same."""

import sys
import threading
import weakref

import pytest

import analysis.cli
from d2l_study import cli
from d2l_study.cli import slide_commands
from d2l_study.lost_interruptions import AGAIN_AFTER_SECONDS, lost_interruptions_sent_again


class Object:
    pass


def drop(error):
    """Raise an error in the callback of a weak reference, where h5py and others lose Ctrl-C."""

    def callback(reference):
        raise error

    dying = Object()
    reference = weakref.ref(dying, callback)
    del dying
    assert reference() is None


def work(arguments):
    drop(KeyboardInterrupt())
    threading.Event().wait(60)
    return 0


def test_it_is_raised_outside_the_callback():
    before = sys.unraisablehook
    with lost_interruptions_sent_again():
        with pytest.raises(KeyboardInterrupt):
            work(None)
        with pytest.raises(KeyboardInterrupt):  # and once more
            work(None)
    assert sys.unraisablehook is before


def test_other_errors_are_said_as_before_and_nothing_comes_after_the_end(monkeypatch):
    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    with lost_interruptions_sent_again():
        drop(ValueError("of a callback"))
        drop(KeyboardInterrupt())
    threading.Event().wait(4 * AGAIN_AFTER_SECONDS)
    assert [one.exc_type for one in said] == [ValueError]


def test_every_command_line_ends_with_130(monkeypatch, capsys):
    monkeypatch.setattr(slide_commands, "_tile", work)
    assert cli.main(["tile", "a.svs", "--mpp", "1", "--size", "9", "--out", "o"]) == 130
    monkeypatch.setattr(analysis.cli, "_tables", work)
    assert analysis.cli.main(["tables", "few"]) == 130
    assert capsys.readouterr().err.count("Stopped") == 2
