"""Space files: where they are looked up, and what they hold as plain keys and values."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import d2l_study
from d2l_study.command_line import command_text
from d2l_study.environment import user_path
from d2l_study.errors import UserError, listed, nearest, short
from d2l_study.study.space.keys import MOST_BYTES
from d2l_study.study.space.yaml_reader import parse_yaml


def space_folders() -> list[Path]:
    """Where named spaces are looked up: the checkout's `search_spaces`, then those inside the package."""
    package = Path(d2l_study.__file__).parent
    folders = [package / "search_spaces"]
    if (package.parent / "pyproject.toml").is_file():
        folders.insert(0, package.parent / "search_spaces")
    return [f for f in folders if f.is_dir()]


def find_space(name_or_file: str | os.PathLike[str]) -> Path:
    """The file of a space given by name or as a file; `UserError` with the nearest name if there is none."""
    given = os.fspath(name_or_file)
    path = Path(given)
    named = {p.stem: p for folder in reversed(space_folders()) for p in folder.glob("*.yaml")}
    is_file = path.suffix in (".yaml", ".yml") or os.sep in given or "/" in given
    if not is_file and given in named:
        return named[given]
    if "\0" not in given and given.strip() and os.path.exists(given):  # noqa: PTH110 -- Path.exists may raise
        return path
    if is_file and given.startswith("~") and os.path.exists(opened := user_path(given, "--space")):  # noqa: PTH110
        return opened
    if is_file:
        hint = f"; there is a space named {path.stem!r}" if path.stem in named else nearest(path.stem, named)
        more = f" ({command_text('new')} writes a first space, {command_text('spaces')} lists those that come along)"
        raise UserError(f"--space {short(given, 200)}: no such file{hint or more}")
    shown = short(given) if given.strip() and given.isprintable() else ascii(given)[:40]
    raise UserError(f"--space {shown}: unknown space{nearest(given, named)} (spaces: {listed(sorted(named))}; "
                    f"{command_text('spaces')} says what each asks)")  # fmt: skip


def list_spaces() -> list[tuple[str, str, Path]]:
    """(name, description, file) of every space that can be named. One that cannot be read says why."""
    found: dict[str, tuple[str, str, Path]] = {}
    for folder in space_folders():
        for path in sorted(folder.glob("*.yaml")):
            try:
                document = document_of(read_text(path, path.name), path.name)
                description = str(document.get("description", "")).strip()
            except UserError as error:
                description = f"cannot be read: {error}"
            found.setdefault(path.stem, (path.stem, description, path))
    return [found[name] for name in sorted(found)]


# ---- reading


def document_of(text: str, shown: str) -> dict[str, Any]:
    """The keys and values of a space's text; `UserError`, which begins with `shown`, if it is not YAML or empty."""
    document = parse_yaml(text, shown)
    if document is None:
        raise UserError(f"{shown}: the file is empty; a space needs at least description and methods")
    return mapping(document, shown)


def read_text(path: Path, shown: str) -> str:
    """The text of a space file; `UserError` if it cannot be read, is too long or not UTF-8."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):  # a pipe or a device may give no end of bytes, or wait for ever
            raise UserError(f"{shown}: {'a folder' if stat.S_ISDIR(mode) else 'not a file'}; expected a YAML file")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{shown}: more than {MOST_BYTES:,} bytes; a space is not so long")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}: line {line}: not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def mapping(value: Any, where: str) -> dict[str, Any]:
    """The value as a mapping; nothing at all (`teacher:`) is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise UserError(f"{where}: expected keys with values (key: value), found {kind} {short(repr(value))}")
    return value


def shown_path(path: Path) -> str:
    """The path as a message names it: relative if it lies below the working folder."""
    with_cwd = os.path.relpath(path) if path.is_absolute() else str(path)
    return str(path) if with_cwd.startswith("..") else with_cwd
