"""YAML without surprises, for spaces: plain values only, nothing executed, no key silently lost."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import yaml

from d2l_study.errors import UserError


class _Composer(
    yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, yaml.resolver.BaseResolver
):
    """YAML without what surprises in a space: no tags, aliases, dates, base 60 or octal; `1e-3` is a number."""

    def __init__(self, text: str) -> None:
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        yaml.resolver.BaseResolver.__init__(self)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported; write it out", mark)
        return super().compose_node(parent, index)


_TAG = "tag:yaml.org,2002:"
_BOOLS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", "|".join(f"{w}|{w.title()}|{w.upper()}" for w in _BOOLS), list("yYtToOnNfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?([0-9][0-9_]*(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     list("-+.0123456789")),
):  # fmt: skip
    _Composer.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern})$"), _first)


def parse_yaml(text: str, where: str) -> Any:
    """Plain values (dict, list, str, int, float, bool, None) of one YAML document; None if it is empty.

    Nothing is executed and no key is silently lost: tags, aliases, duplicate keys and keys that are not text are
    refused. `UserError` begins with `where` and names the line.
    """
    try:
        composer = _Composer(text)
        node = composer.get_single_node()
        return None if node is None else _value(node, where)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        raise UserError(f"{where}: {line}not valid YAML: {short(error.problem or error.context or '', 160)}") from None
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character[:1] or " ")
        raise UserError(f"{where}: line {number}: not valid YAML: the character U+{code:04X} is not allowed") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply to be a space") from None
    except (ValueError, LookupError) as error:  # PyYAML lets a few through, an escape beyond Unicode for one
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: not valid YAML: {short(str(error), 160)}") from None


def _value(node: Any, where: str) -> Any:
    line = node.start_mark.line + 1
    kind = node.tag.removeprefix(_TAG)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.value, kind, f"{where}: line {line}")
    if isinstance(node, yaml.SequenceNode) and kind == "seq":
        return [_value(inner, where) for inner in node.value]
    if not isinstance(node, yaml.MappingNode) or kind != "map":
        raise UserError(f"{where}: line {line}: tags ({short(node.tag)}) are not supported")
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        key = _value(key_node, where)
        if not isinstance(key, str):
            as_written = getattr(key_node, "value", None)
            if isinstance(as_written, str) and as_written:
                reading, quoted = short(scalar_text(key)), f"'{short(as_written)}'"
                raise UserError(f"{where}: line {line}: the name {short(as_written)} is not text (YAML reads it as "
                                f"{reading}); write it in quotes: {quoted}")  # fmt: skip
            raise UserError(f"{where}: line {line}: a key is not text")
        if key in values:
            raise UserError(f"{where}: line {line}: the key {short(key)!r} was given on line {lines[key]} already")
        values[key], lines[key] = _value(value_node, where), line
    return values


def _scalar(text: str, kind: str, where: str) -> Any:
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return _BOOLS[text.lower()]
        if kind == "int" and len(text) > 18:
            raise UserError(f"{where}: the number {short(text)} is too long")
        if kind == "int":
            return int(text.replace("_", ""))
        if kind == "float":
            return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    except (ValueError, LookupError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{where}: {short(text)!r} is not a YAML {kind}") from None
    if kind != "str":
        raise UserError(f"{where}: tags ({short(kind)}) are not supported")
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in text):
        raise UserError(f"{where}: a text with control characters: {short(ascii(text))}")
    return text


def short(text: str, most: int = 60) -> str:
    text = " ".join(str(text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def scalar_text(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
