"""What tests of studies share."""

import pytest
from empty_store import copied_store


@pytest.fixture
def uri(tmp_path, tmp_path_factory):
    """The address of an MLflow store that holds nothing yet."""
    return copied_store(tmp_path, tmp_path_factory)
