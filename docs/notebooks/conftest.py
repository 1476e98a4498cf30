"""The notebooks as tests (`make test-notebooks`): each runs as a reader runs it, in a kernel, with Ray.

Their spaces are smaller there (`execute.SMALL`), by nbmake's mocks, and their runs are measured on fewer digits.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))

from few_digits import digits

SHOWS_REPORT = "mnist_study"
"""The notebook that looks for the report of its study."""


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker("ray")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """The kernel and its commands are of this Python and import this checkout; what they leave is removed."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="nb", ignore_cleanup_errors=True) as folder,
    ):
        patch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")  # small networks: threads would wait for each other
        patch.setenv("D2L_CACHE", str(Path(folder) / "cache"))
        patch.setenv("TMPDIR", folder)
        patch.setenv("JUPYTER_PLATFORM_DIRS", "1")  # without it Jupyter warns of its old folders
        patch.delenv("D2L_DATA", raising=False)
        (Path(folder) / "digits").symlink_to(digits())  # the notebook's own folder is beside it
        if item.path.stem != SHOWS_REPORT:
            patch.setenv("D2L_REPORT", "no")  # seconds of drawing what it does not look at
        return (yield)
