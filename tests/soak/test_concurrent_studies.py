"""Two to four studies of shared runs, started together and killed at random: nothing lost, nothing trained twice."""

import contextlib
import os
import random
import signal
import time

import pytest
from shared import BEST, KEPT, STUDENTS, TEACHERS, Shared, Watch
from studies import end_session, workers

pytestmark = pytest.mark.soak

KILLS = 8
SPACES = {"students": STUDENTS, "teachers": TEACHERS, "kept": TEACHERS + KEPT, "best": STUDENTS + BEST}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The same studies, one after the other."""
    place = Shared(tmp_path_factory.mktemp("undisturbed"), SPACES)
    for name in place.names:
        driver = place.begin(name)
        assert place.wait(driver, 600) == 0, place.told()
    place.check_whole()
    return place


def finish(place, drivers):
    for name, driver in drivers.items():
        assert place.wait(driver, 900) == 0, f"{name}\n{place.told()}"
        assert "Traceback" not in place.log(name).read_text(), place.told()


@pytest.mark.parametrize("seed", range(3))
def test_students_and_a_study_of_their_teachers_that_keeps_no_weights(undisturbed, tmp_path, seed):
    """Started within three seconds, either first: the second to commit must take no weights away."""
    place = Shared(tmp_path, {name: SPACES[name] for name in ("students", "teachers")})
    draw = random.Random(seed)
    watch = Watch(place.root)
    watch.start()
    drivers = {}
    for name in draw.sample(place.names, 2):
        drivers[name] = place.begin(name)
        time.sleep(draw.uniform(0, 3))
    finish(place, drivers)
    watch.end()
    place.check_whole()
    for name in place.names:
        assert place.table(name) == undisturbed.table(name)


def test_identical_studies_side_by_side_share_the_work(undisturbed, tmp_path):
    place = Shared(tmp_path, {"teachers": TEACHERS, "twin": TEACHERS})
    watch = Watch(place.root)
    watch.start()
    finish(place, {name: place.begin(name) for name in place.names})
    watch.end()
    place.check_whole()
    assert place.trained() == dict.fromkeys(place.trained(), 1), place.told()
    expected = undisturbed.table("teachers")
    assert place.table("teachers") == expected and place.table("twin") == expected


@pytest.mark.parametrize(("count", "seed"), [(2, 1), (3, 2), (4, 3)])
def test_random_kills_of_drivers_and_workers_lose_nothing(undisturbed, tmp_path, count, seed):
    place = Shared(tmp_path, dict(list(SPACES.items())[:count]))
    draw = random.Random(seed)
    watch = Watch(place.root)
    watch.start()
    drivers = {name: place.begin(name) for name in place.names}
    victims = 0
    for number in range(KILLS):
        if number % 2 and (victim := some_worker(drivers, draw)) is not None:
            time.sleep(draw.uniform(0, 1))
            print(f"worker {victim} is killed", flush=True)
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                victims += 1
            continue
        time.sleep(draw.uniform(1, 12))
        name = draw.choice(place.names)
        driver = drivers[name]
        print(f"the driver of {name} is killed" + (", which has ended" * (driver.poll() is not None)), flush=True)
        driver.kill()
        driver.wait()
        if draw.random() < 0.5:
            end_session(driver, 0)
        drivers[name] = place.begin(name)
    for name, driver in drivers.items():
        if driver.wait(900) != 0:  # one that was started while what the killed one left was still at work
            drivers[name] = place.begin(name)
    finish(place, drivers)
    watch.end()
    place.check_whole()
    for name in place.names:
        assert place.table(name) == undisturbed.table(name)
    assert victims, "no worker was killed"


def some_worker(drivers, draw, patience=60.0):
    """The process id of a worker that has a trial; None if none comes to be."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and any(driver.poll() is None for driver in drivers.values()):
        if at_work := [pid for driver in drivers.values() for pid in workers(driver)]:
            return draw.choice(at_work)
        time.sleep(0.1)
    return None
