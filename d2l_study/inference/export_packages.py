"""The packages that exports to other programs' formats need; `pip install 'd2l-study[export]'` adds them."""

from __future__ import annotations

import importlib
from typing import Any

from d2l_study.errors import UserError


def needed(name: str, what: str) -> Any:
    """The module of that name; `UserError` says what needs it, and how to get it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{what} needs the package {name}: pip install 'd2l-study[export]'") from None
