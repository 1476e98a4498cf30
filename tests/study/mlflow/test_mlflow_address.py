"""An MLflow store that was being made when its maker was killed."""

import pytest
from empty_store import empty_store

from d2l_study import temporary_files
from d2l_study.study.mlflow.address import check_uri, sqlite_uri


@pytest.mark.parametrize("there", [True, False])
def test_the_pieces_of_a_store_whose_maker_was_killed_go_at_the_next_command(tmp_path, tmp_path_factory, there):
    empty = empty_store(tmp_path_factory)
    path = tmp_path / "mlflow.db"
    if there:
        path.write_bytes(empty.read_bytes())
    else:
        # What making one costs is not of interest here.
        import d2l_study.study.mlflow.address as address

        made = address.client
        address.client = lambda uri: made(uri) if ".part" not in uri else _Copies(uri, empty)
    for name in (".mlflow.db.0123abcd.part", ".mlflow.db.0123abcd.part-journal", ".mlflow.db.0123abcd.part.lock"):
        (tmp_path / name).write_bytes(b"")
    with temporary_files.held(tmp_path / ".mlflow.db.4567abcd.part.lock"):
        (tmp_path / ".mlflow.db.4567abcd.part").write_bytes(b"")
        try:
            check_uri(sqlite_uri(path))
        finally:
            if not there:
                address.client = made
        left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".mlflow.db.4567abcd.part", ".mlflow.db.4567abcd.part.lock", "mlflow.db"]


class _Copies:
    def __init__(self, uri, empty):
        self.uri, self.empty = uri, empty

    def search_experiments(self, max_results):
        from d2l_study.study.mlflow.address import sqlite_path

        sqlite_path(self.uri).write_bytes(self.empty.read_bytes())
