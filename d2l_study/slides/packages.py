"""The packages of the extra `[wsi]`, which the product works without until it meets a slide."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

from d2l_study.errors import UserError

PACKAGES = ("openslide", "tifffile", "imagecodecs")
"""The modules that read slides."""

INSTALL = "pip install 'd2l-study[wsi]'"


def wsi_package(name: str, path: Path) -> Any:
    """A module of the extra `[wsi]`; `UserError` with the line that installs it, if it is not there.

    path: the file that it is needed for.
    """
    return extra_package(name, f"{path}: a whole-slide image; reading these")


def shapely_package() -> Any:
    """The module of polygons; `UserError` as of `extra_package`."""
    return extra_package("shapely", "working with annotations and regions of slides")


def extra_package(name: str, purpose: str) -> Any:
    """A module of the extra `[wsi]`; `UserError` with the line that installs it, if it is not there.

    purpose: what it is needed for, as the beginning of a sentence: "reading slides".
    """
    try:
        module = importlib.import_module(name)
        if name == "tifffile":
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what it finds odd; what matters is raised
        return module
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        raise UserError(f"{purpose} needs `{INSTALL}`") from None


def has_wsi(*names: str) -> bool:
    """Whether modules of the extra can be imported."""
    try:
        for name in names:
            importlib.import_module(name)
    except (ImportError, OSError):
        return False
    return True
