"""The ledger in a bucket, against a server that speaks S3 over HTTP."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from d2l_study.errors import UserError
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.object_storage import ObjectStorage
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1", **keys)
    client.create_bucket(Bucket="studies")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.delenv("AWS_PROFILE", raising=False)
        yield f"s3://studies/d2l?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
    server.stop()


@pytest.fixture
def storage(bucket: str, request: pytest.FixtureRequest) -> ObjectStorage:
    opened = open_storage(bucket.replace("/d2l?", f"/{request.node.name}?"))
    assert isinstance(opened, ObjectStorage)
    return opened


def test_objects_are_put_read_listed_and_removed(storage: ObjectStorage) -> None:
    storage.ensure_writable()
    assert storage.list("") == [] and not storage.exists("a/b")
    storage.put("a/b", b"1")
    storage.put("a/b", b"2")
    storage.put("a/c/d", b"3")
    assert storage.read("a/b") == b"2" and storage.exists("a/b") and not storage.exists("a")
    assert storage.list("a") == ["b", "c"]
    assert storage.map(storage.read, ["a/c/d", "a/b", "a/c/d"]) == [b"3", b"2", b"3"]
    storage.delete("a/b")
    storage.delete("a/b")
    with pytest.raises(FileNotFoundError):
        storage.read("a/b")


def test_a_bucket_is_walked_as_a_folder_is(storage: ObjectStorage, tmp_path: Path) -> None:
    folder = LocalStorage(tmp_path)
    for one in (storage, folder):
        for key in ("results/ab/c/r000/commit.json", "results/ab/d/config.json", "studies/s/plan.json"):
            one.put(key, key.encode())
    for prefix in ("results", "results/ab/c", "nothing"):
        found = storage.walk(prefix)
        assert [(o.key, o.bytes) for o in found] == [(o.key, o.bytes) for o in folder.walk(prefix)]
        assert all(abs(o.written - time.time()) < 600 for o in (*found, *folder.walk(prefix)))
    folder.delete("results/ab/d/config.json")
    for one in (storage, folder):
        one.remove_empty_folders("results")
    assert not (tmp_path / "results/ab/d").exists() and [o.key for o in folder.walk("studies")] == [
        "studies/s/plan.json"
    ]
    assert folder.exists("results/ab/c/r000/commit.json")


def test_what_waits_for_a_bucket_waits_side_by_side(storage: ObjectStorage) -> None:
    both = threading.Barrier(2, timeout=20)  # opens only if two wait at once
    assert storage.map(lambda item: (both.wait() >= 0, item), "ab") == [(True, "a"), (True, "b")]
    own = storage.map(lambda item: set(storage.map(lambda _: threading.get_ident(), "xyz")), "ab")
    assert all(len(threads) == 1 for threads in own)  # and does not multiply


def test_a_small_object_is_one_request(monkeypatch: pytest.MonkeyPatch, storage: ObjectStorage) -> None:
    from werkzeug.serving import WSGIRequestHandler

    seen: list[str] = []
    monkeypatch.setattr(WSGIRequestHandler, "log_request", lambda self, *words: seen.append(self.command))
    storage.put("a/b", b"1")
    assert seen == ["PUT"]


def test_the_first_commit_stays(storage: ObjectStorage) -> None:
    ledger = Ledger(storage)
    config = "ab" * 10
    assert ledger.commit(config, 3, {"status": "done", "bag_auc": 0.5}, {"curve.json": b"[]"}, attempt="first")
    assert not ledger.commit(config, 3, {"status": "done", "bag_auc": 0.9}, {"curve.json": b"[1]"}, attempt="second")
    record = ledger.read(config, 3)
    assert record is not None and record["row"]["bag_auc"] == 0.5
    assert ledger.read_file(config, 3, "curve.json") == b"[]"
    assert sorted(storage.list(ledger.run_key(config, 3))) == ["commit.json", "first.curve.json"]


def test_a_study_is_found_in_a_bucket_as_in_a_folder(storage: ObjectStorage) -> None:
    folder = StudyFolder(storage, "mine")
    entry = {"config_id": "cd" * 10, "stage": "teacher", "method": "none", "values": {"num_bags": 50}, "varied": [],
             "replicates": [0, 1]}  # fmt: skip
    folder.write("methods: {none: {}}\n", {"space": {}}, [entry])
    folder.ledger.commit("cd" * 10, 0, {"status": "done", "bag_auc": 0.75}, {})
    folder.write_failure("cd" * 10, 1, {"cause": "lost"})
    rows = find_study("mine", storage.address).compact()
    assert list(rows["status"]) == ["done", "failed"] and rows["bag_auc"][0] == 0.75
    assert storage.exists("studies/mine/rows.parquet")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s4://bucket/x", "did you mean 's3'"),
        ("s3:///x", "names no bucket"),
        ("s3://key:secret@bucket/x", "holds credentials"),
        ("https://example.org/x", "s3://"),
        ("s3:/bucket/x", "did you mean s3://bucket/x?"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        open_storage(address)
    assert said in str(refused.value) and "secret" not in str(refused.value)


def test_a_bucket_that_is_not_there_shows_before_any_work(bucket: str) -> None:
    with pytest.raises(UserError, match="cannot write there"):
        open_storage(bucket.replace("studies", "other")).ensure_writable()


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (403, "AccessDenied", "credentials"),
        (403, "InvalidAccessKeyId", "credentials"),
        (400, "ExpiredToken", "credentials"),
        (404, "NoSuchBucket", "was it made?"),
        (301, "PermanentRedirect", "region"),
        (400, "AuthorizationHeaderMalformed", "region"),
    ],
)
def test_a_bucket_that_refuses_is_told_in_a_line_with_what_to_look_at(
    status: int, code: str, hint: str, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from d2l_study.cli import main

    class Refusing(http.server.BaseHTTPRequestHandler):
        """Answers as S3 does that refuses."""

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            body = f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_POST = answer

        def log_message(self, *words: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"s3://b/x?scheme=http&endpoint_override=127.0.0.1:{server.server_port}&region=us-east-1"
    try:
        assert main(["run", "--space", "smoke", "--root", address]) == 2
    finally:
        server.shutdown()
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"error: --root {address}: cannot ") and hint in said and len(said.splitlines()) == 1


def test_a_path_is_a_folder(tmp_path: object) -> None:
    assert isinstance(open_storage(str(tmp_path)), LocalStorage)


def _list(words: list[str]) -> int:
    from d2l_study.cli import main

    return main(["list", *words])


def _tables(words: list[str]) -> int:
    from analysis.cli import main

    return main(["tables", "smoke", *words])


@pytest.mark.slow
@pytest.mark.parametrize("command", [_tables, pytest.param(_list, marks=pytest.mark.soak)])  # pyarrow tries for 6 s
def test_a_bucket_that_does_not_answer_is_told_without_a_traceback(
    bucket: str, capsys: pytest.CaptureFixture[str], command: Callable[[list[str]], int]
) -> None:
    address = "s3://studies/d2l?scheme=http&endpoint_override=127.0.0.1:1&region=us-east-1"
    assert command(["--root", address]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: --root {address}: cannot be read: ") and "NETWORK_CONNECTION" in said
    assert len(said.splitlines()) == 1


@pytest.mark.soak
def test_a_bucket_that_is_away_for_a_while_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    moto = pytest.importorskip("moto.server")
    import boto3

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1").create_bucket(Bucket="away")
    storage = open_storage(f"s3://away/d2l?scheme=http&endpoint_override={host}:{port}&region=us-east-1")
    storage.put("before", b"1")
    server.stop()
    back = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    timer = threading.Timer(3.0, back.start)
    timer.start()
    try:
        storage.put("while", b"2")
        assert timer.finished.is_set() and storage.read("before") == b"1" and storage.read("while") == b"2"
    finally:
        timer.join()
        back.stop()
    monkeypatch.setattr("d2l_study.study.ledger.object_storage.PATIENCE", 0.0)
    with pytest.raises(OSError, match="away"):  # away for good
        storage.put("after", b"3")
