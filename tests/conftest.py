"""Lets every test import what stands beside this file, such as `make_study`."""

import gc
import os
import sys
from pathlib import Path

import pytest

# A report takes seconds at the end of every study; tests of reports ask for it.
os.environ.setdefault("D2L_REPORT", "no")

# Studies of tests compute on the processor, on a machine with a GPU too.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# The networks are small and other tests run beside: threads would only wait for each other. Before NumPy and PyTorch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(Path(__file__).parent))

# Thousands of files are stored, and a test's folder need not outlast a power failure. Whether the files of a root are
# synced in an order that does, `power.py` sees, which records the calls.
os.fsync = lambda number: None


_TESTS, _end_by_force = os.getpid(), os._exit


def _end_by_force_elsewhere(code):
    """A test that ends the process of the tests would take all the others of its file along, and say nothing."""
    if os.getpid() == _TESTS:
        raise AssertionError(f"os._exit({code}) in the process of the tests: run this in a process of its own")
    _end_by_force(code)


os._exit = _end_by_force_elsewhere


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Collecting makes millions of objects that all stay: to look for garbage among them takes a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def new_stores_copied(tmp_path_factory):
    """MLflow makes a store by fifty migrations, seconds of them: each process of tests does so once."""
    from empty_store import new_stores_copied  # for the options above to be set

    with new_stores_copied(tmp_path_factory):
        yield
