"""What a study and an arm may be called: what every later use of the name can take.

A name becomes a folder and parts of file names, an object in a bucket, an MLflow experiment, a text in MLflow's
filters, the folder of its artifacts (percent-encoded), a cell of a CSV file that a spreadsheet may open, and a word on
command lines, where `mlflow:URI#NAME` and `FILE.csv` mean something else.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import quote

from d2l_study.errors import UserError

SIGNS = "_.+-=,()@"
"""What a study's name may hold besides letters, digits and single spaces between words."""

ARM_SIGNS = "_.+-"
MOST_LETTERS, MOST_ENCODED, MOST_OF_ARM = 100, 200, 60
"""The longest name in letters, and as MLflow's folder of artifacts has it, in which é takes six."""

ENDINGS = (".csv", ".parquet", ".part", ".")
"""Files of rows, files that are being written, and what some file systems drop."""

RESERVED = ("default",)
"""MLflow's own experiment, which its pages and ours leave out."""

EXPECTED = (
    f"expected letters, digits, spaces and {' '.join(SIGNS)}, the first a letter, digit or _, at most {MOST_LETTERS} "
    "(beyond ASCII fewer)"
)


def study_name_problem(name: str) -> str | None:
    """Why a study cannot be called so, or None if it can."""
    if not name.strip():
        return "empty"
    if not name.isprintable():
        return "it holds invisible letters"
    for sign in name:
        if not (_of_word(sign) or sign in SIGNS or sign == " "):
            return f"it holds {sign!r}"
    if not (name[0].isalnum() or name[0] == "_"):
        return f"it begins with {name[0]!r}"
    if name != name.strip() or "  " in name:
        return "it has spaces at an end or several in a row"
    if unicodedata.normalize("NFC", name) != name:
        return "it holds letters in parts (an accent of its own), which look like others"
    if ending := next((e for e in ENDINGS if name.lower().endswith(e)), None):
        return f"it ends with {ending!r}"
    if name.lower() in RESERVED:
        return "that is an experiment of MLflow's own"
    if len(name) > MOST_LETTERS:
        return f"it has {len(name)} letters"
    if (length := len(quote(name, safe=""))) > MOST_ENCODED:
        return f"it takes {length} letters of the {MOST_ENCODED} that the name of a folder of MLflow's has"
    return None


def can_be_folder(name: str) -> bool:
    """Whether a study of that name may be there, from before there was a rule, or made by hand."""
    fits = len(name.encode("utf-8", "surrogatepass")) < 256
    return bool(name) and fits and name[0] != "." and not any(c in name for c in "/\\\0")


def check_study_name(name: str, where: str = "--study") -> None:
    """`UserError` that says why, if a study cannot be called so. where: the option or key it came from."""
    if problem := study_name_problem(name):
        raise UserError(f"{where} {_shown(name)} is not allowed: {problem}; {EXPECTED}")


def arm_name_problem(name: str) -> str | None:
    """Why an arm cannot be called so, or None if it can: an arm is ASCII, since keys and labels are made from it."""
    if not name or len(name) > MOST_OF_ARM:
        return f"{len(name)} letters"
    for sign in name:
        if not ((sign.isascii() and sign.isalnum()) or sign in ARM_SIGNS):
            return f"it holds {sign!r}"
    if not (name[0].isalnum() or name[0] == "_"):
        return f"it begins with {name[0]!r}"  # of what begins with + or - a spreadsheet makes a formula
    return None


def _of_word(sign: str) -> bool:
    """A letter or digit of any script, or a mark that belongs to the letter before it."""
    return unicodedata.category(sign)[0] in "LNM"


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:39]}…")
