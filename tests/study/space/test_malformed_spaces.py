"""Spaces and overrides that are generated wrong: each is refused in a few words, and none raises anything else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_space import EXAMPLE

from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.study.space.keys import StudyOptions
from d2l_study.study.space.load import load_space

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
numbers = ("steps", "epsilon", "lambda_adv", "batch_bags", "learning_rate", "eval_every")
wrong = st.one_of(
    st.text(alphabet="xyz !{}[]:#&*'\"\\\n", min_size=1, max_size=30), st.just(math.nan), st.just(-math.inf),
    st.booleans(), st.integers(max_value=-1), st.dictionaries(words, st.integers(), max_size=2), st.just([]),
    st.just([5, 5]), st.lists(st.lists(st.integers(), max_size=2), min_size=1, max_size=2), st.none(),
)  # fmt: skip
broken = st.sampled_from(
    ["[", "{", '"', "'", "a: b: c", "\t- x", "*x", "!!python/name:os.system x", "- 1", "? ", "%", "@x", "`", "a\nb",
     "| x", "--- \n...\n--- 1", "description: again", "<<: {a: 1}", "\x00", "!!set {a}", "!!int x", "!!float 1..2",
     "!!bool 7", '"\\U0011FFFF": 1', '"\\ud800": 1', "no: 1", "null: 1", "2020-01-01: 1",
     "&a [*a]: 1", "[" * 2000, "{a: " * 2000]
)  # fmt: skip


@st.composite
def malformed(draw: Any) -> bytes:
    space: dict[str, Any] = yaml.safe_load(EXAMPLE)
    kind = draw(st.sampled_from(["key", "value", "axis", "section", "method", "top", "missing", "text", "bytes"]))
    home = draw(st.sampled_from([space["teacher"], space["methods"]["vat"]["teacher"]]))
    if kind == "key":
        place = draw(st.sampled_from([space, space["data"], home, space["methods"]["none"]]))
        known = {
            *space,
            *MnistBags.keys(),
            *TeacherConfig.keys(),
            "base_seed",
            "keep_weights",
            "metric",
            "resources",
        }
        place[draw(words.filter(lambda word: word not in known))] = draw(st.integers() | words)
    elif kind == "value":
        home[draw(st.sampled_from(numbers))] = draw(wrong)
    elif kind == "axis":
        space["data"]["num_bags"] = [*draw(st.lists(st.integers(2, 99), max_size=3)), draw(st.integers(max_value=1))]
    elif kind == "section":
        space[draw(st.sampled_from(["data", "teacher", "methods", "resources"]))] = draw(
            st.integers() | words | st.lists(st.integers(), min_size=1, max_size=3)
        )
    elif kind == "method":
        name = draw(words.filter(lambda word: not all(c.isascii() and (c.isalnum() or c in "_.+-") for c in word)))
        space["methods"][name] = {}
    elif kind == "missing":
        del space[draw(st.sampled_from(["description", "methods"]))]
    text = yaml.safe_dump(space, allow_unicode=draw(st.booleans()))
    if kind == "top":
        text = yaml.safe_dump(draw(st.lists(words, max_size=3) | words | st.integers()))
    if kind == "text":
        lines = text.splitlines()
        lines.insert(draw(st.integers(0, len(lines))), draw(broken))
        text = "\n".join(lines) + "\n" + draw(broken)
    data = text.encode("utf-8", "surrogatepass")
    return data + draw(st.sampled_from([b"\xff", b"\xc3(", b"\xed\xa0\x80"])) if kind == "bytes" else data


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True, database=None
)
@given(data=malformed())
def test_generated_malformed_spaces_are_refused_in_a_few_words(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "generated.yaml"
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        load_space(path)
    message = str(error.value)
    assert "generated.yaml" in message
    assert len(message) < 600
    assert message.isprintable() or "\n" not in message


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(key=words | st.sampled_from(["teacher.", "methods.vat.", "methods..", ".", "data.dataset"]), value=words)
def test_generated_overrides_are_accepted_or_refused(tmp_path_factory: Any, key: str, value: str) -> None:
    path = tmp_path_factory.getbasetemp() / "overridden.yaml"
    path.write_text(EXAMPLE)
    try:
        space = load_space(path, [f"{key}={value}"])
    except UserError as error:
        assert "--set" in str(error) and len(str(error)) < 600
    else:  # one of few that make sense: a description, say
        assert space.overrides == (f"{key}={value}",) and hasattr(StudyOptions, key)
