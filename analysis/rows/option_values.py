"""What the values of the options of `python -m analysis` mean, where a value is more than a word."""

from __future__ import annotations

from collections.abc import Sequence

from d2l_study.errors import UserError

EXAMPLES = {"--baseline": "method=none", "--where": "num_bags=50", "--label": "none='Attention MIL'"}


def pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    """KEY=VALUE, each; UserError for a text that is none."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            expected = "NAME=TEXT" if option == "--label" else "KEY=VALUE"
            raise UserError(f"{option} {text or repr(text)}: expected {expected}, for example {EXAMPLES[option]}")
        found[key] = value
    return found


def metrics(texts: Sequence[str] | None) -> str | list[str] | None:
    """`--metric a,b` and `--metric a --metric b` are two metrics; None without the option. UserError for one that
    names none."""
    if texts is None:
        return None
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if not names:
        raise no_metric(" ".join(texts))
    return names[0] if len(names) == 1 else names


def metric(text: str | None) -> str | None:
    """The one metric of a figure."""
    if text is not None and not text.strip():
        raise no_metric(text)
    return text


def no_metric(text: str) -> UserError:
    """text: what names none."""
    return UserError(f"--metric {text.strip() or repr(text)}: names no metric; expected one, for example bag_auc")
