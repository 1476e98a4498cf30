"""A strict YAML reader for spaces.

It gives plain values only, executes nothing, refuses a key that is given twice, and bounds the number of values.
Aliases (`*name` for what `&name` names) and merge keys (`<<: *name`) are supported.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import yaml

from d2l_study.errors import UserError, short
from d2l_study.options import as_yaml
from d2l_study.study.space.yaml_errors import MOST_VALUES, TOO_MANY, yaml_error_text


class _Composer(
    yaml.reader.Reader, yaml.scanner.Scanner, yaml.parser.Parser, yaml.composer.Composer, yaml.resolver.BaseResolver
):
    """Composes the nodes of a document. It knows no tags, dates, base-60 or octal numbers; `1e-3` is a number.

    repeated: the ids of nodes that an alias refers to.
    """

    def __init__(self, text: str) -> None:
        self.repeated: set[int] = set()
        self.nodes = 0
        yaml.reader.Reader.__init__(self, text)
        yaml.scanner.Scanner.__init__(self)
        yaml.parser.Parser.__init__(self)
        yaml.composer.Composer.__init__(self)
        yaml.resolver.BaseResolver.__init__(self)

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        if self.nodes > MOST_VALUES:
            raise yaml.composer.ComposerError(None, None, TOO_MANY, self.peek_event().start_mark)
        alias = self.check_event(yaml.events.AliasEvent)
        node = super().compose_node(parent, index)
        if alias:
            self.repeated.add(id(node))
        return node


MERGE = "<<"
HOLDER = "x-"
"""How a key at the top level begins that is there only to hold what is repeated elsewhere."""

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

    Nothing is executed and no key is silently lost: tags, duplicate keys and keys that are not text are refused. Keys
    at the top level that begin with `x-` hold what aliases repeat, and are left out. `UserError` begins with `where`
    and names the line.
    """
    try:
        composer = _Composer(text)
        node = composer.get_single_node()
        return None if node is None else _Reader(where, composer.repeated).document(node)
    except yaml.MarkedYAMLError as error:
        raise UserError(f"{where}: {yaml_error_text(error)}") from None
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


class _Reader:
    """Reads the plain values of composed nodes; a node that aliases repeat is read once."""

    def __init__(self, where: str, repeated: set[int]) -> None:
        self.where = where
        self.repeated = repeated
        self._known: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def document(self, node: Any) -> Any:
        """The value of the root, without the keys that only hold what is repeated."""
        if isinstance(node, yaml.MappingNode):
            held = [pair for pair in node.value if _is_holder(pair[0])]
            for key, value in held:
                if not self._repeats(value):
                    raise UserError(f"{self._at(key)}: {short(key.value)}: a key that begins with {HOLDER} holds what "
                                    "is repeated elsewhere (&name here, *name there); nothing of it is")  # fmt: skip
                self.value(value)  # it is checked, too
            node.value = [pair for pair in node.value if not _is_holder(pair[0])]
        return self.value(node)

    def _repeats(self, node: Any) -> bool:
        if id(node) in self.repeated:
            return True
        if isinstance(node, yaml.ScalarNode):
            return False
        inner = [n for pair in node.value for n in pair] if isinstance(node, yaml.MappingNode) else node.value
        return any(self._repeats(n) for n in inner)

    def _at(self, node: Any) -> str:
        return f"{self.where}: line {node.start_mark.line + 1}"

    def value(self, node: Any) -> Any:
        return self._read(node)[0]

    def _read(self, node: Any) -> tuple[Any, int]:
        """A node's value, and how many values it holds."""
        if id(node) in self._known:
            return self._known[id(node)]
        if id(node) in self._open:
            raise UserError(f"{self._at(node)}: not valid YAML: what begins here holds an alias (*name) of itself")
        self._open.add(id(node))
        kind = node.tag.removeprefix(_TAG)
        if isinstance(node, yaml.ScalarNode):
            found: tuple[Any, int] = _scalar(node.value, kind, self._at(node)), 1
        elif isinstance(node, yaml.SequenceNode) and kind == "seq":
            inner = [self._read(one) for one in node.value]
            found = [value for value, _ in inner], 1 + sum(size for _, size in inner)
        elif isinstance(node, yaml.MappingNode) and kind == "map":
            found = self._mapping(node)
        else:
            raise UserError(f"{self._at(node)}: tags ({short(node.tag)}) are not supported")
        if found[1] > MOST_VALUES:
            raise UserError(f"{self._at(node)}: {TOO_MANY}, with what aliases repeat")
        self._open.discard(id(node))
        self._known[id(node)] = found
        return found

    def _mapping(self, node: Any) -> tuple[dict[str, Any], int]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        lines: dict[str, int] = {}
        total = 1
        for key_node, value_node in node.value:
            merges = _is_merge(key_node)
            key = MERGE if merges else self._key(key_node)
            if (mark := f"{merges} {key}") in lines:
                raise UserError(f"{self._at(key_node)}: the key {short(key)!r} was given on line {lines[mark]} already")
            lines[mark] = key_node.start_mark.line + 1
            value, size = self._read(value_node)
            total += 1 + size
            if not merges:
                own[key] = value
                continue
            for part in value if isinstance(value, list) else [value]:
                if not isinstance(part, dict):
                    raise UserError(f"{self._at(key_node)}: {MERGE} merges keys with values, *name of such or a list "
                                    f"of them; found {short(repr(part))}")  # fmt: skip
                merged = {**part, **merged}  # the first of several goes before, and over all what is written here
        return {**merged, **own}, total

    def _key(self, node: Any) -> str:
        key = self.value(node)
        if isinstance(key, str):
            return key
        as_written = getattr(node, "value", None)
        if isinstance(as_written, str) and as_written:
            reading, quoted = short(as_yaml(key)), f"'{short(as_written)}'"
            raise UserError(f"{self._at(node)}: the name {short(as_written)} is not text (YAML reads it as {reading}); "
                            f"write it in quotes: {quoted}")  # fmt: skip
        raise UserError(f"{self._at(node)}: a key is not text")


def _is_merge(key: Any) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == MERGE and key.style is None


def _is_holder(key: Any) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value.startswith(HOLDER)


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
