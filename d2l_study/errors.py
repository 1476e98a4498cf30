"""Errors in the user's words: file, key, value found, values allowed. The command line prints them
without a traceback and exits with 2; a notebook sees an ordinary `ValueError`."""

from __future__ import annotations

import contextlib
import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator

from d2l_study.credentials import masked


class UserError(ValueError):
    """Something the user gave is wrong; the message says what and where, and what would be right. What is secret in it
    is masked: messages are kept and shown."""

    def __init__(self, *said: object) -> None:
        super().__init__(*(masked(part) if isinstance(part, str) else part for part in said))


class DamagedError(UserError):
    """A stored file is not what was written: cut short, overwritten, or not ours. The message names the file, and what
    to do with it."""


class DamagedWarning(UserWarning):
    """A stored file is not what was written, and the command goes on without it. The text names the file and says what
    follows."""


class SlowStepsWarning(UserWarning):
    """Training is right, and slower than it could be; the text says why. `run` prints what its workers say of it."""


class StorageError(OSError):
    """The root of results takes nothing more: the disk is full, over quota or read-only, the bucket refuses. What was
    committed is safe; there is no use in going on."""


class UnreadableError(OSError):
    """A root that cannot be read: the network, a bucket's name, the right to, a folder where a file should be."""


class MachineError(OSError):
    """The machine did not do what was rightly asked, as where Ray does not start on one that is overloaded. The same
    command may succeed later."""


ROOT_ERRORS = (StorageError, UnreadableError)
"""The root of results takes or gives nothing: no run's fault, and nothing that another attempt would change."""


def nearest(name: object, valid: Iterable[object], alike: float = 0.6) -> str:
    """`"; did you mean 'x'?"` for the nearest of the valid names, or an empty string if none is alike enough. Of a name
    that differs by upper and lower case alone it says that case matters."""
    cutoff = alike if len(str(name)) > 2 else min(alike, 0.5)  # of two letters one may be another
    found = nearest_name(name, valid, cutoff)
    return "" if found is None else hint_text(name, found)


def hint_text(name: object, found: str, before: str = "") -> str:
    """What a message adds where `found` is the nearest of the valid names. before: what stands before it where it is
    given."""
    by_case = found != str(name) and found.lower() == str(name).lower()
    return f"; {'case matters: ' if by_case else ''}did you mean {before + found!r}?"


def nearest_option(option: str, known: Iterable[str]) -> str:
    """As `nearest`, of options of a command, whose dashes make no two of them alike."""
    by_name = {one.lstrip("-"): one for one in known}
    found = nearest_name(option.lstrip("-"), by_name)
    return "" if found is None else hint_text(option, by_name[found])


def nearest_name(name: object, valid: Iterable[object], alike: float = 0.6) -> str | None:
    """The nearest of the valid names, or None if none is alike enough.

    A name that differs by case alone is the nearest of all. A name is also compared with the first words of a valid
    one, so that `lamda` finds `lambda_adv`, and `eps` finds `epsilon`. alike: the least likeness, from 0 to 1; among
    equals the first of `valid` is found.
    """
    text = str(name).lower()
    if not text:
        return None
    matcher = difflib.SequenceMatcher(b=text)  # which is prepared once for all names
    found, best = None, (0.0, 0.0)
    for one in map(str, valid):
        if one.lower() == text:
            return one
        whole = _likeness(matcher, one, alike)
        begun = max((0.95 * _likeness(matcher, start, alike) for start in _beginnings(text, one)), default=0.0)
        if (score := (max(whole, begun), whole)) > best and score[0] >= alike:
            found, best = one, score
    return found


def _beginnings(text: str, name: str) -> list[str]:
    """The beginnings of a name that a text may mean: its first words, or as many letters as the text has."""
    if len(text) < 3:
        return []
    words = name.split("_")
    starts = ["_".join(words[:number]) for number in range(1, len(words))]
    return starts + ([text] if name.startswith(text) else [])


def _likeness(matcher: difflib.SequenceMatcher[str], name: str, cutoff: float) -> float:
    """The ratio of `difflib`, from 0 to 1; 0 where bounds that are found sooner say that it is below the cutoff."""
    matcher.set_seq1(name)
    if matcher.real_quick_ratio() < cutoff or matcher.quick_ratio() < cutoff:
        return 0.0
    return matcher.ratio()


def counted(number: int, what: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its kind if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def listed(values: Iterable[object], most: int = 12) -> str:
    """The values as `a, b, c`, cut after `most`."""
    names = [str(v) for v in values]
    return ", ".join(names[:most]) + (f", … ({len(names)} in all)" if len(names) > most else "")


@contextlib.contextmanager
def damage_shown(most: int = 5) -> Iterator[None]:
    """For a command line: while the block runs, each `DamagedWarning` is one line on the standard error, once, and
    after `most` of them their count."""
    said: dict[str, None] = {}
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: object) -> None:
            if not issubclass(category, DamagedWarning):
                before(message, category, *where)  # type: ignore[arg-type]
            elif str(message) not in said:
                said[str(message)] = None
                if len(said) <= most:
                    print(f"warning: {message}", file=sys.stderr, flush=True)

        warnings.simplefilter("always", DamagedWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        finally:
            if len(said) > most:
                print(f"warning: … and {len(said) - most} more damaged files", file=sys.stderr, flush=True)


def warn_damaged(text: str) -> None:
    """Say that a damaged file counts as missing: in a notebook as a Python warning, in a command as a line."""
    warnings.warn(text, DamagedWarning, stacklevel=3)


def short(text: str, most: int = 60) -> str:
    """A text on one line, of at most `most` characters."""
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 1] + "…"
