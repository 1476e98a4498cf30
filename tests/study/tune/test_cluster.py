"""How Ray is started and ended: where its files are, what is said if it does not start, and how it ends."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from pathlib import Path

import pytest

from d2l_study.errors import MachineError, UserError
from d2l_study.study.tune import cluster, processes
from d2l_study.study.tune.cluster import shut_down


def at(monkeypatch: pytest.MonkeyPatch, place: Path | str) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(place))


def test_ray_keeps_its_own_place_where_its_sockets_have_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at(monkeypatch, "/tmp")
    with cluster.ray_folder() as place:
        assert place is None
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
def test_a_long_name_of_a_temporary_folder_is_exchanged_for_a_short_one_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    at(monkeypatch, "/tmp")
    monkeypatch.setenv(variable, str(tmp_path / ("x" * 60)))
    with cluster.ray_folder() as place:
        assert place is not None and cluster.is_usable(place)
        owned = Path(place).parent
        assert owned.stat().st_uid == os.getuid() and owned.stat().st_mode & 0o077 == 0
        # As Ray names them: the date, the time and the largest process number that there is.
        socket = f"{place}/session_2026-11-26_14-30-12_123456_4194304/sockets/plasma_store"
        assert len(os.fsencode(socket)) <= 107
    said = capsys.readouterr().out
    assert str(owned) in said and said.count("\n") == 1 and not owned.exists()


def test_a_temporary_folder_that_nobody_may_write_is_exchanged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    at(monkeypatch, "/proc/nothing")
    with cluster.ray_folder() as place:
        assert place is not None


def test_without_any_place_a_line_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at(monkeypatch, tmp_path / ("x" * 60))
    monkeypatch.setattr(cluster, "is_usable", lambda folder: False)
    with pytest.raises(UserError, match="set RAY_TMPDIR to a shorter folder"), cluster.ray_folder():
        pass
    left = [path for base in ("/tmp", "/var/tmp", "/dev/shm") for path in Path(base).glob("d2l-ray-*")]
    assert not [path for path in left if path.stat().st_uid == os.getuid() and not (path / "owner.lock").exists()]


def test_an_error_of_the_study_passes_through(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    at(monkeypatch, tmp_path / ("x" * 60))
    with pytest.raises(OSError, match="the study's"), cluster.ray_folder():
        raise OSError("the study's own")


@pytest.mark.parametrize("error", [Exception, TimeoutError, RuntimeError, ConnectionError])
def test_a_ray_that_does_not_start_is_a_line(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    import ray

    tries = []

    def late(**options: object) -> None:
        tries.append(options)
        raise error("The current node timed out during startup.\nThis could happen because …")

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(MachineError) as caught, cluster.cluster("local"):
        pass
    said = str(caught.value)
    assert said.startswith("Ray did not start on this machine, tried twice: The current node timed out during startup.")
    assert "session_latest/logs" in said and "\n" not in said and len(tries) == 2


def test_a_ray_that_is_late_once_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import ray

    tries = []

    def late_once(**options: object) -> None:
        tries.append(options)
        if len(tries) == 1:
            raise TimeoutError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late_once)
    with cluster.cluster("local"):
        pass
    assert len(tries) == 2
    assert "Ray did not start: The current node timed out during startup." in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.soak
def test_a_ray_that_is_late_once_is_started_again_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a machine that is busy: the node is not there in Ray's thirty seconds."""
    import ray._private.services as services

    known, started = services.get_node, []

    def late(*arguments: object) -> object:
        if not started:
            started.extend(one.pid for one in processes.children_named("raylet", "gcs_server"))
            raise Exception("The current node timed out during startup.")
        return known(*arguments)

    monkeypatch.setattr(services, "get_node", late)
    with cluster.cluster("local") as ray:
        assert ray.is_initialized() and len(started) == 2
        assert not set(started) & {one.pid for one in processes.children_named("raylet", "gcs_server")}
    assert "Ray did not start: The current node timed out during startup." in capsys.readouterr().err


class Reference:
    """As Ray's: it must not die while Ray ends."""

    def __init__(self) -> None:
        self.myself = self


class Ending:
    """Stands in Ray's place and looks, when it is ended, what the collector of another thread could find."""

    def __init__(self, left: weakref.ref[Reference], *, fails: bool = False) -> None:
        self.left, self.fails = left, fails

    def shutdown(self) -> None:
        self.cycle_was_there = self.left() is not None
        self.collector_was_on = gc.isenabled()
        if self.fails:
            raise RuntimeError("Ray does not end")


def test_ray_ends_with_no_cycle_for_another_threads_collector_to_find() -> None:
    gc.disable()
    try:
        cycle = Reference()
        left = weakref.ref(cycle)
        del cycle
        assert left() is not None  # or the test shows nothing
    finally:
        gc.enable()
    ending = Ending(left)
    shut_down(ending)
    assert not ending.cycle_was_there
    assert not ending.collector_was_on
    assert gc.isenabled()


def test_the_collector_is_on_again_after_a_failed_end_and_stays_off_for_who_has_it_off() -> None:
    ending = Ending(weakref.ref(Reference()), fails=True)
    with contextlib.suppress(RuntimeError):
        shut_down(ending)
    assert gc.isenabled()
    gc.disable()
    try:
        shut_down(Ending(weakref.ref(Reference())))
        assert not gc.isenabled()
    finally:
        gc.enable()
