"""Help texts of the program as Markdown."""

import re


def escaped(text: str) -> str:
    """A plain text in which `words` are code, and every other sign of Markdown and HTML means itself."""
    return "".join(part if re.fullmatch(r"`[^`]+`", part) else _signs(part) for part in re.split(r"(`[^`\n]+`)", text))


def _signs(text: str) -> str:
    for sign in "\\`*_<>[]$":
        text = text.replace(sign, f"&#{ord(sign)};")
    return text
