"""The `ui` command's function: the right store. It serves one in `../mlflow/test_study_models.py`: a server takes long
to start.
"""

import socket

import pytest
from make_study import make_study

from d2l_study.errors import UserError
from d2l_study.study.commands.mlflow_ui import free_port, serve


def test_without_a_store_it_names_the_command_that_makes_one(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(UserError, match="run --space"):
        serve(tmp_path, uri)
    make_study(tmp_path, "kept", num_bags=(50,), bag_sizes=(10,), replicates=1)
    with pytest.raises(UserError, match="sync kept"):
        serve(tmp_path, uri)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("notes, no database " * 50)
    with pytest.raises(UserError, match="not a database"):
        serve(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


def test_a_taken_port_is_not_fought_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = free_port(port)
        assert other != port
    assert free_port(other) == other
