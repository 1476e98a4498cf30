"""Text on terminals: lines that fit the screen; and letters that not every console can print (ASCII, Windows' code
pages, Latin-1)."""

from __future__ import annotations

import codecs
import shutil
import sys
import textwrap
import unicodedata

NAME = "d2l_plain"

NO_BREAK = "\xa0"
"""A space between words that belong on one line."""

WIDTH = 100
"""Columns of a printed line at most; a narrower terminal takes its own."""

_LEAST_ROOM = 24
"""Columns beside a name that a text needs for lines of its own."""

PLAIN = {
    "−": "-", "–": "-", "—": "-", "±": "+/-", "×": "x", "·": "*", "…": "...", "→": "->", "←": "<-", "≤": "<=",
    "≥": ">=", "∈": "in", "∞": "inf", "≠": "!=", "≈": "~", "√": "sqrt", "∇": "grad ", "∂": "d", "‖": "|", "†": "+",
    "▲": "^", "▼": "v", "⌈": "ceil(", "⌉": ")",
    "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "ß": "ss", "\xa0": " ",
    "\u2009": " ", "\u202f": " ", "✓": "ok", "✗": "x",
    **{name: word for names, words in (
        ("αβγδεζηθικλμνξοπρστυφχψω", "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron "
         "pi rho sigma tau upsilon phi chi psi omega"),
    ) for name, word in zip(names, words.split(), strict=True)},
    "ς": "sigma", "ϵ": "epsilon", "µ": "u",
}  # fmt: skip
PLAIN |= {name.upper(): word.title() for name, word in PLAIN.items() if "α" <= name <= "ω" and name != "ς"}
"""What stands for a letter that cannot be printed. Others lose their accents, or become `?`."""

_LINES = {"HORIZONTAL": "-", "VERTICAL": "|"}


def plain(text: str) -> str:
    """The text in ASCII, for people: λ as lambda, − as -, é as e, lines of boxes as - | and +."""
    return "".join(sign if sign.isascii() else PLAIN.get(sign) or _plain(sign) for sign in text)


def _plain(sign: str) -> str:
    code = ord(sign)
    if 0x2500 <= code < 0x2580:  # lines of boxes
        name = unicodedata.name(sign, "")
        found = [line for word, line in _LINES.items() if word in name]
        return found[0] if len(found) == 1 and " AND " not in name else "+"
    if 0x2580 <= code < 0x25A0:  # parts of bars
        return "#"
    if 0xDC80 <= code < 0xDD00:  # a byte of a file's name that is no text
        return f"\\x{code - 0xDC00:02x}"
    decomposed = unicodedata.normalize("NFKD", sign).replace("\u2044", "/")
    ascii_part = decomposed.encode("ascii", "ignore").decode()
    if unicodedata.combining(sign):
        return ""
    if unicodedata.category(sign).startswith("No") and ascii_part.isdigit():
        return f"^{ascii_part}"
    return ascii_part or "?"


def _instead(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return plain(error.object[error.start : error.end]), error.end


codecs.register_error(NAME, _instead)


def print_anywhere() -> None:
    """Let what stdout and stderr cannot encode be printed in plain letters, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        change = getattr(stream, "reconfigure", None)  # a notebook's has none, and takes everything
        if change is not None:
            try:
                change(errors=NAME)
            except (OSError, ValueError):  # it is closed
                continue


def screen_width(most: int = WIDTH) -> int:
    """The columns of a printed line: `most`, or those of a narrower terminal, at least 40."""
    return min(most, max(40, shutil.get_terminal_size((most, 24)).columns))


def print_entry(name: str, text: str, width: int) -> None:
    """Print a name in a column of `width`, and a text beside it. On a terminal the text is broken between words, and
    its lines begin in one column; elsewhere it stays in one line, for `grep`."""
    start = f"{name:<{width}}  "
    if sys.stdout.isatty() and (room := shutil.get_terminal_size().columns - len(start)) >= _LEAST_ROOM:
        text = f"\n{' ' * len(start)}".join(textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False))
    print(f"{start}{text}")


def print_wrapped(text: str, indent: str = "") -> None:
    """Print a line, broken between words where it is wider than the screen; not at `NO_BREAK`, which is printed as a
    space. indent: before its first line; the others are set in by four spaces more."""
    width = screen_width()
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent + "    ",
                          break_long_words=False, break_on_hyphens=False)  # fmt: skip
    print("\n".join(lines).replace(NO_BREAK, " "))
