"""The one place that reads the environment (Ray's and MLflow's own variables are set in `study`)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from d2l_study.errors import UserError

CACHE = "D2L_CACHE"
DATA = "D2L_DATA"
REPORT = "D2L_REPORT"


def tracking_uri() -> str | None:
    """MLflow's own variable for the address of the tracking store, or None."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def reports_wanted() -> bool:
    """Whether a study writes its report at its end: unless `D2L_REPORT` is `no` or `0`."""
    return os.environ.get(REPORT, "").lower() not in ("no", "0", "false")


def data_root(named: str | None = None) -> Path:
    """The folder that holds archives of tissue images: the one named, else that of `D2L_DATA`; `UserError` if there is
    neither, or no such folder."""
    found = named or os.environ.get(DATA)
    if not found:
        raise UserError(f"data.root: not given; name the folder that holds the archives, or set {DATA} to it")
    folder = Path(found).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"{'data.root' if named else DATA}: {found!r} is not a folder")
    return folder


def cache_dir() -> Path:
    """A node-local folder for decoded data: `D2L_CACHE`, else `~/.cache/d2l_study`, else under the temp folder."""
    named = os.environ.get(CACHE)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    candidates = [Path(named)] if named else [Path(base) / "d2l_study"]
    candidates.append(Path(tempfile.gettempdir()) / f"d2l_study-{os.getuid()}")
    for path in candidates:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(path, os.W_OK | os.X_OK):
            return path
    raise UserError(f"no writable cache folder among {', '.join(map(str, candidates))}; set {CACHE}")
