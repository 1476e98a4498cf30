"""Malformed spaces, generated from the shipped ones: each is answered in a message, never by a traceback."""

import copy
import random
import subprocess
import sys

import pytest
import yaml

from d2l_study import cli
from d2l_study.study.space.files import list_spaces

pytestmark = pytest.mark.soak

COUNT = 300
PROCESSES = 10
SEED = 11
WRONG = ["", " ", "yes please", -1, -1e300, 1e308, 10**30, float("nan"), float("inf"), [], {}, [[]], {"a": {}}, None,
         True, "1e", "0x", [1, "a"], {"low": 2, "high": 1}, {"low": "x"}, {"lo": 1, "high": 2}, "é\u202e",
         "a" * 5000]  # fmt: skip


def places(tree, path=()):
    """Every place of a space: paths of keys and list indices."""
    found = [path] if path else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


def mutated(text, draw):
    """A space with one to three of its places changed, or a text with a few of its characters changed."""
    if draw.random() < 0.4:
        letters = list(text)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(letters))
            letters[at : at + draw.randint(0, 3)] = draw.choice(
                [":", "\t", "{", "]", "- ", "\n", "&a ", "*a", "\0", "%", "'", "9"]
            )
        return "".join(letters)
    tree = yaml.safe_load(text)
    for _ in range(draw.randint(1, 3)):
        known = places(tree)
        if not known:
            break
        *above, last = draw.choice(known)
        holder = tree
        for key in above:
            holder = holder[key]
        kind = draw.choice(["value", "value", "remove", "rename", "nest"])
        if kind == "value":
            holder[last] = copy.deepcopy(draw.choice(WRONG))
        elif kind == "remove":
            del holder[last]
        elif kind == "rename" and isinstance(holder, dict):
            holder[str(last)[:-1] + draw.choice("xyz ")] = holder.pop(last)
        else:
            holder[last] = {"deeper": holder[last]}
    return yaml.safe_dump(tree, allow_unicode=True)


def generated(count):
    draw = random.Random(SEED)
    texts = [path.read_text() for _, _, path in list_spaces()]
    return [mutated(draw.choice(texts), draw) for _ in range(count)]


def test_generated_spaces_are_answered_in_one_message(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("D2L_DATA", raising=False)
    codes = []
    for number, text in enumerate(generated(COUNT)):
        (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
        code = cli.main(["plan", "--space", "space.yaml"])
        said = capsys.readouterr()
        assert code in (0, 2), (number, text)
        if code == 2:
            assert said.err.startswith("error: ") and "Traceback" not in said.err, (number, said.err, text)
            assert len(said.err.strip().splitlines()) <= 4 and len(said.err) < 3000, (number, said.err)
        codes.append(code)
    assert codes.count(2) >= 200, f"only {codes.count(2)} of {COUNT} were malformed"
    assert not (tmp_path / "runs").exists()


def test_malformed_spaces_are_refused_by_the_command_itself(tmp_path):
    refused = 0
    for text in generated(COUNT):
        (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
        if cli.main(["plan", "--space", str(tmp_path / "space.yaml"), "--root", str(tmp_path / "runs")]) != 2:
            continue
        done = subprocess.run(
            [sys.executable, "-m", "d2l_study", "run", "--space", "space.yaml"],
            capture_output=True, text=True, cwd=tmp_path, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2 and done.stderr.startswith("error: "), done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "runs").exists()
        refused += 1
        if refused == PROCESSES:
            return
    raise AssertionError(f"only {refused} malformed spaces")
