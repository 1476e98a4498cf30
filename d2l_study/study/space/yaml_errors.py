"""PyYAML's errors in the words of who writes a space: the line to look at, and what is wrong there."""

from __future__ import annotations

import re

import yaml

from d2l_study.errors import short

MOST_VALUES = 20_000
"""Values and keys of a document, those that aliases repeat counted each time; a space of hundreds of lines has some
thousand."""
TOO_MANY = f"more than {MOST_VALUES:,} values and keys"
_BRACKETS = {"while parsing a flow mapping": "{", "while parsing a flow sequence": "["}
_BLOCKS = ("while parsing a block mapping", "while parsing a block collection")
_NO_KEY = "a key without ':' behind it"
_PLAIN = {
    "mapping values are not allowed here": "a ':' where none can be; text that holds ': ' needs quotes, and keys of "
    "one level begin in one column",
    "sequence entries are not allowed here": "'- ' where no list can begin; give each entry a line of its own",
    "could not find expected ':'": _NO_KEY,
    "expected '<document start>'": "this does not belong to what stands before it; a space is one mapping of keys",
    "expected the node content, but found": "a value or a key is missing, or something here opens or closes too much",
    "but found another document": "a second document (---); a space is one",
}
_TOKENS = {
    "<scalar>": "a value",
    "<alias>": "an alias (*name)",
    "<anchor>": "an anchor (&name)",
    "<tag>": "a tag (!name)",
    "<block end>": "the end of the block",
    "<block mapping start>": "a mapping",
    "<block sequence start>": "a list",
    "<stream end>": "the end of the file",
    "<stream start>": "the file's beginning",
    "<document start>": "---",
    "<document end>": "...",
}
"""The parser's names of what it reads, in words."""


def yaml_error_text(error: yaml.MarkedYAMLError) -> str:
    """`line 3: not valid YAML: …`, in one line."""
    mark, began = error.problem_mark or error.context_mark, error.context_mark
    problem, context = short(error.problem or error.context or "", 160), error.context or ""
    if problem == TOO_MANY and mark is not None:
        return f"line {mark.line + 1}: {problem}"
    if mark is not None and began is not None:
        first, last = began.line + 1, mark.line + 1
        if "duplicate anchor" in context:
            return f"line {last}: not valid YAML: this name was given on line {first} already (&name)"
        if "quoted scalar" in context and "escape" not in problem:
            return f"line {first}: not valid YAML: the quote that opens here is not closed ({problem})"
        if opened := _BRACKETS.get(context):
            found, on = problem.rpartition("but got ")[2], f" on line {last}" if last != first else ""
            comma = "" if "<stream end>" in found else f", or a comma is missing before {found}{on}"
            return f"line {first}: not valid YAML: the {opened} that opens here is not closed{_without_tokens(comma)}"
        if context == "while scanning a simple key":
            return f"line {first}: not valid YAML: {_NO_KEY}"
        if context in _BLOCKS and problem.startswith("expected <block end>"):
            if last != first:
                return (f"line {last}: not valid YAML: this does not fit the lines from line {first} on: keys of one "
                        "level begin in one column")  # fmt: skip
            if "<anchor>" in problem or "<alias>" in problem or "<tag>" in problem:
                return f"line {last}: not valid YAML: {_without_tokens(problem.rpartition('found ')[2])} too many"
            return f"line {last}: not valid YAML: text behind a quote or bracket that closes"
    line = f"line {mark.line + 1}: " if mark else ""
    inside = ""
    if mark is not None and began is not None and began.line != mark.line and "document" not in problem:
        inside = f", in what begins on line {began.line + 1}"
    return f"{line}not valid YAML: {_in_words(problem)}{inside}"


def _in_words(problem: str) -> str:
    if "'\\t'" in problem:
        return "a tab; indent with spaces"
    if problem.startswith("found character ") and "cannot start any token" in problem:
        return f"a value cannot begin with {problem.split()[2]}; put it in quotes"
    if match := re.fullmatch(r"found undefined alias '(.*)'", problem):
        return f"*{match[1]} stands for no value: no &{match[1]} comes before it; text that begins with * needs quotes"
    return next((text for start, text in _PLAIN.items() if problem.startswith(start)), _without_tokens(problem))


def _without_tokens(text: str) -> str:
    for token, words in _TOKENS.items():
        text = text.replace(f"'{token}'", words).replace(token, words)
    return text
