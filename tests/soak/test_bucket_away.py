"""A bucket that does not answer for a while in the middle of a study, and one that goes for good."""

import time

import pytest
from bucket import KEYS, BucketPlace, Proxy, Server
from studies import FAULTY, Place

pytestmark = pytest.mark.soak
pytest.importorskip("moto.server")

STEPS, REPLICATES = 160, 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("undisturbed"), steps=STEPS, replicates=REPLICATES)
    place.run()
    return place.rows()


@pytest.fixture
def server(tmp_path):
    import boto3

    made = Server(tmp_path)
    address = f"http://127.0.0.1:{made.port}"
    boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1",
        **{name.lower(): value for name, value in KEYS.items()},
    ).create_bucket(Bucket="studies")  # fmt: skip
    yield made
    made.end()


def begun(place, server):
    """The study at work: something is committed, much is not, and trials are between two checkpoints."""
    driver = place.start()
    files = place.files(server.port)
    place.until(lambda: files.paths("commit.json") and files.paths("checkpoint.pt"), driver, "a commit")
    return driver, files


def assert_complete(place, files, undisturbed, leftover=0):
    """leftover: how many runs may have left something that nobody reads. Where the bucket goes for good between a
    commit and the removal of its checkpoint, that one stays, and between its data and its commit the data of that
    attempt. A worker has one run at a time."""
    assert files.rows() == undisturbed
    assert len(files.paths("checkpoint.pt")) <= leftover
    assert not any("/failures/" in p or "/attempts/" in p for p in files.paths())
    made = files.attempts()
    assert made.total() == len(undisturbed) and made[1] >= made.total() - leftover and set(made) <= {1, 2}
    assert {run.info.status for run in place.children(place.store())[1]} == {"FINISHED"}


@pytest.mark.parametrize("outage", ["refused", "hanging"])
def test_a_bucket_that_is_away_for_half_a_minute_costs_half_a_minute(outage, server, undisturbed, tmp_path):
    proxy = Proxy(server.port)
    place = BucketPlace(tmp_path / outage, proxy.port, STEPS, REPLICATES)
    driver, files = begun(place, server)
    before = {path: files.read(path) for path in files.paths("commit.json")}
    assert 0 < len(before) < len(undisturbed)
    proxy.close() if outage == "refused" else server.suspend()
    time.sleep(25)
    assert driver.poll() is None, place.said()
    proxy.open() if outage == "refused" else server.resume()
    assert place.wait(driver, 600) == 0, place.said()
    assert "Traceback" not in place.said()
    if outage == "refused":  # where it hangs, pyarrow itself goes on asking for longer than that
        assert "does not answer" in place.said() and "answers again" in place.said()
    assert_complete(place, files, undisturbed)
    assert all(files.read(path) == content for path, content in before.items())


def test_a_bucket_that_stays_away_ends_the_study_and_it_goes_on_when_it_is_back(server, undisturbed, tmp_path):
    proxy = Proxy(server.port)
    place = BucketPlace(tmp_path / "gone", proxy.port, STEPS, REPLICATES, PYTHONPATH=FAULTY, D2L_PATIENCE="20")
    driver, files = begun(place, server)
    before = {path: files.read(path) for path in files.paths("commit.json")}
    proxy.close()
    assert place.wait(driver, 200) == 1, place.said()
    assert "Traceback" not in place.said()
    assert "error: cannot" in place.said() and "what was committed is safe" in place.said()
    proxy.open()
    assert "failed" not in place.call("status", "few")
    assert "resuming" in place.run()
    assert_complete(place, files, undisturbed, leftover=2)
    assert all(files.read(path) == content for path, content in before.items())
