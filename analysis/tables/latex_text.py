"""Text for LaTeX, in ASCII wherever LaTeX has a command for a character, so that any engine reads it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from analysis.tables.sheet import NO_BREAK

_COMMANDS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''",
    "“": "``", "”": "''", "‘": "`", "’": "'", "†": r"$\dagger$", "‡": r"$\ddagger$", "→": r"$\rightarrow$",
    "←": r"$\leftarrow$", "↔": r"$\leftrightarrow$", "·": r"$\cdot$", "•": r"$\bullet$", "±": r"$\pm$", "−": r"$-$",
    "‐": "-", "–": "--", "—": "---", "≥": r"$\geq$", "≤": r"$\leq$", "≠": r"$\neq$", "≈": r"$\approx$",
    "…": r"\dots{}", "×": r"$\times$", "÷": r"$\div$", "√": r"$\surd$", "∈": r"$\in$", "∞": r"$\infty$",
    "∂": r"$\partial$", "∇": r"$\nabla$", "∑": r"$\sum$", "∏": r"$\prod$", "°": r"$^\circ$", "¬": r"$\neg$",
    NO_BREAK: "~", "\u2009": r"\,", "\u202f": r"\,", "\u00ad": r"\-",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "¡": "!`", "¿": "?`", "§": r"\S{}", "¶": r"\P{}", "£": r"\pounds{}",
    "©": r"\copyright{}",
}  # fmt: skip
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
"""Combining mark -> command. Those that some encodings of fonts lack (an ogonek) are not among them."""
_BELOW = "dcb"
_GREEK_BY_NAME = "αβγδζηθικμνξπρστυχψωΓΔΘΞΠΣΥΦΨΩ"
_GREEK = {
    "λ": r"\lambda", "Λ": r"\Lambda", "ς": r"\varsigma", "ε": r"\varepsilon", "ϵ": r"\epsilon", "φ": r"\varphi",
    "ϕ": r"\phi", "ϑ": r"\vartheta", "ο": "o", "µ": r"\mu",
}  # fmt: skip
"""Letters whose command is not their Unicode name; the last is the micro sign."""
_LIKE_LATIN = dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX", strict=True))
"""Greek capitals that LaTeX has no command for, since they look like Latin ones."""


def escape_latex(text: str) -> str:
    """The text with every character that LaTeX would read as a command written out, and accents, Greek letters, signs,
    superscripts and fractions as commands. Letters of other scripts, for which there is none, stay as they are
    (`beyond_ascii`)."""
    return "".join(map(_command, _letters(unicodedata.normalize("NFC", text))))


def beyond_ascii(text: str) -> list[str]:
    """The characters of escaped text that not every LaTeX engine can print, each once, in order: a letter with the
    marks that belong to it; what has no picture of its own as `U+200B`."""
    found = dict.fromkeys(letter for letter in _letters(text) if not letter.isascii())
    return [letter if letter.isprintable() else " ".join(f"U+{ord(c):04X}" for c in letter) for letter in found]


def _letters(text: str) -> Iterable[str]:
    """The text in pieces: a character with the combining marks behind it."""
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or not unicodedata.combining(text[i]):
            yield text[start:i]
            start = i


def _command(letter: str) -> str:
    if letter in _COMMANDS:
        return _COMMANDS[letter]
    if letter.isascii():
        return letter
    return _accented(letter) or _greek(letter) or _compatible(letter) or letter


def _accented(letter: str) -> str:
    r"""`\'{e}`; empty where the letter is none of ASCII, or a mark has no command."""
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if not (marks and base.isascii() and base.isalpha() and all(mark in _ACCENTS for mark in marks)):
        return ""
    commands = [_ACCENTS[mark] for mark in marks]
    made = rf"\{base}" if base in "ij" and any(c not in _BELOW for c in commands) else base  # an accent takes the dot
    for command in commands:
        made = rf"\{command}{{{made}}}"
    return made


def _greek(letter: str) -> str:
    """`$\\alpha$`; empty for what is no plain Greek letter."""
    if letter in _LIKE_LATIN:
        return rf"$\mathrm{{{_LIKE_LATIN[letter]}}}$"
    if letter in _GREEK:
        return f"${_GREEK[letter]}$"
    if letter not in _GREEK_BY_NAME:
        return ""
    name = unicodedata.name(letter).split()[-1]
    return rf"$\{name.lower() if letter.islower() else name.capitalize()}$"


def _compatible(letter: str) -> str:
    """Superscripts, subscripts and fractions as formulas, ligatures and wide letters as what they stand for; empty for
    any other."""
    kind, *codes = (unicodedata.decomposition(letter) if len(letter) == 1 else "").split() or [""]
    plain = "".join(chr(int(code, 16)) for code in codes)
    if kind in ("<compat>", "<wide>", "<narrow>", "<noBreak>"):
        return escape_latex(plain)
    if kind == "<fraction>":
        over, _, under = plain.partition("\u2044")
        return rf"$\frac{{{over}}}{{{under}}}$" if over and under else ""
    sign = {"<super>": "^", "<sub>": "_"}.get(kind)
    plain = rf"\mathrm{{{plain}}}" if plain.isascii() and plain.isalpha() else plain.replace("−", "-")
    return rf"${sign}{{{plain}}}$" if sign and plain.isascii() else ""
