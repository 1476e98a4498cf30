"""Real MNIST, decoded into a cache folder of the test session."""

import numpy as np
import pytest

from d2l_study.data import MnistBags
from d2l_study.data.pool import Pool


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(tmp_path_factory.mktemp("cache")))
        return MnistBags().load_pool()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20261122)
