"""A Ctrl-C that comes while Python runs a callback that no exception can leave ends a command all the same."""

import signal
import sys
import threading
import weakref

import pytest

import analysis.cli
from d2l_study import cli
from d2l_study.cli import slide_commands
from d2l_study.lost_interruptions import AGAIN_AFTER_SECONDS, lost_interruptions_sent_again


@pytest.fixture(autouse=True)
def ctrl_c_raises():
    """A shell that starts the tests in the background lets them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
    # The wait itself must be interrupted, and not what comes after it.
    over = threading.Event()
    end = threading.Timer(30, over.set)
    end.start()
    try:
        over.wait()
    finally:
        end.cancel()
        assert not over.is_set(), "the command waited to the end"


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
