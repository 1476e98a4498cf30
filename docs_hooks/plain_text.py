"""Help texts of the program as Markdown."""


def escaped(text: str) -> str:
    """A plain text, every sign of which means itself in Markdown and HTML."""
    for sign in "\\`*_<>[]$":
        text = text.replace(sign, f"&#{ord(sign)};")
    return text
