"""Spaces and --set, generated from the shipped ones by a seeded fuzzer: `plan` answers each with exit code 0 or 2, in a
message, within bounds of time and memory; and what it accepts is what was written.

The same function makes a few in `make test` and many in `make soak`.
"""

import copy
import math
import random
import resource
import signal
import tempfile
from pathlib import Path

import pytest

from d2l_study import cli
from d2l_study.data import DATASETS
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.options import field_of
from d2l_study.study.space.files import list_spaces
from d2l_study.study.space.keys import ARM_GROUPS, SECTIONS, StudyOptions
from d2l_study.study.space.load import load_space
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.space import Space
from d2l_study.study.space.yaml_reader import parse_yaml

SMALL = ("smoke", "vat_quick", "distill_quick", "regularizers", "reg_tuning", "vat_tuning", "distill_confirm")
SECONDS = 120
"""After which an answer counts as none: a guard against what never ends, on a machine however slow."""
MEMORY = 1 << 30
"""Bytes by which the process may grow over all answers."""

CLASSES = {"teacher": TeacherConfig, "student": StudentConfig, "resources": Resources, "data": DATASETS["mnist"]}
ODD = [
    "", " ", "yes please", "on", "~", "null", "none", "auto", "1e3", "0x10", "1_0", ".5", "-1", "é\u202e", "x" * 5000,
    0, 1, 2, 3, 7, -1, 0.5, 1e-3, 1e308, -1e300, 10**17, 10**30, float("nan"), float("inf"), True, False, None,
    [], {}, [[]], [1, 2], [0, 1], [1, 1], [1, "a"], [None, 5], {"low": 1, "high": 4}, {"low": 2, "high": 1},
    {"low": 1e-4, "high": 1e-2, "log": True}, {"low": "x"}, {"lo": 1, "high": 2}, {"choices": [1, 2]},
    {"choices": ["none", "affine"]}, {"choices": [1, 1]}, {"teacher": {"lambda_adv": 1}}, {"a": {"b": {"c": 1}}},
    list(range(1, 4000)), {f"a{i}": {} for i in range(300)},
]  # fmt: skip
TEXTS = [
    ":", "\t", "{", "}", "]", "- ", "\n", "\n  ", "&a ", "*a", "<<: *a", "\0", "%", "'", '"', "9", "#", "? ", "!!x ",
    "|", "x-a: &a {steps: 3}\n", "---\n", "\u2028", "e", "-", ".",
]  # fmt: skip
TOPS = ["references", "labels", "search", "schedule", "teachers", "x-more", "metric", "student"]
UNDER = [["oracle"], {"none": "Plain"}, {"trials": 3}, {}, "asha", {"a": {}}, {"steps": 5}]


def places(tree, path=()):
    """Every place of a space: paths of keys and list indices."""
    found = [path] if path else []
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        found += places(value, (*path, key))
    return found


def written(value):
    """A value as somebody writes it in a flow of YAML; as it stands where it is text already."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(v) for v in value) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return _text(value) if isinstance(value, str) else repr(value)


def _text(text):
    return "'" + text.replace("'", "''") + "'"


def a_value(key, draw):
    """A value for a key: one that its class allows, or an odd one."""
    cls = next((c for c in (*CLASSES.values(), StudyOptions) if key in c.keys()), None)  # noqa: SIM118
    if cls is None or draw.random() < 0.2:
        return copy.deepcopy(draw.choice(ODD))
    _, meta = field_of(cls, key)
    if meta["choices"]:
        values = list(meta["choices"])
        return draw.sample(values, min(len(values), 2)) if draw.random() < 0.3 else draw.choice(values)
    low = meta["least"] if meta["least"] is not None else meta["above"] if meta["above"] is not None else 0
    high = min(v for v in (meta["most"], meta["below"], low + 10) if v is not None)
    if draw.random() < 0.2:
        return draw.choice([low, high + 1, low - 1, [low, high], (low + high) / 2])
    return draw.choice([high, int(low) + 1, [int(low) + 1, high], [high]])


def mutated(text, draw):
    """A space with up to three of its places changed, or a text with a few of its characters changed."""
    if draw.random() < 0.25:
        letters = list(text)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(letters))
            letters[at : at + draw.randint(0, 3)] = draw.choice(TEXTS)
        return "".join(letters)
    tree = parse_yaml(text, "shipped")
    for _ in range(draw.choice([0, 1, 1, 2, 3])):
        known = places(tree)
        if not known:
            break
        *above, last = draw.choice(known)
        holder = tree
        for key in above:
            holder = holder[key]
        kind = draw.choice(["value", "value", "value", "add", "add", "add", "remove", "rename", "nest", "top"])
        if kind == "value":
            holder[last] = a_value(last, draw)
        elif kind == "remove":
            del holder[last]
        elif kind == "rename" and isinstance(holder, dict):
            holder[str(last)[:-1] + draw.choice("xyz ")] = holder.pop(last)
        elif kind == "add" and isinstance(holder, dict):
            section = draw.choice([s for s in (*above, "teacher") if s in CLASSES])
            key = draw.choice(CLASSES[section].keys())
            holder[key] = a_value(key, draw)
        elif kind == "top":
            tree[draw.choice(TOPS)] = copy.deepcopy(draw.choice([*UNDER, *ODD]))
        elif kind == "nest":
            holder[last] = draw.choice([{"deeper": holder[last]}, [holder[last]]])
    return "".join(f"{_text(str(key))}: {written(value)}\n" for key, value in tree.items())


def overrides(text, draw):
    """Up to three words of --set: keys of the space and of its classes, most of them as they should be."""
    try:
        tree = parse_yaml(text, "mutated")
    except UserError:
        tree = {}
    known = [".".join(map(str, path)) for path in places(tree if isinstance(tree, dict) else {})]
    known += [f"{section}.{key}" for section, cls in CLASSES.items() for key in cls.keys()]  # noqa: SIM118
    known += [*StudyOptions.keys(), "references", "labels.none", "search.trials"]
    found = []
    for _ in range(draw.choice([0, 0, 0, 1, 1, 2])):
        key = draw.choice(known)
        value = written(a_value(key.rpartition(".")[2], draw))
        word = f"{key}={value}"
        if draw.random() < 0.2:
            at = draw.randrange(len(word))
            word = word[:at] + draw.choice(TEXTS) + word[at + 1 :]
        found.append(word)
    return found


def same(asked, kept):
    """Whether a value is kept as it was asked for, in the key's type."""
    if isinstance(asked, dict):
        return isinstance(kept, dict) and all(key in kept and same(value, kept[key]) for key, value in asked.items())
    if isinstance(asked, list):
        kept = kept if isinstance(kept, list) else [kept]
        return len(asked) == len(kept) and all(map(same, asked, kept))
    if asked is None or isinstance(asked, bool) or isinstance(kept, bool):
        return asked is kept
    try:
        return float(asked) == float(kept)
    except (TypeError, ValueError):
        return str(asked).strip() == str(kept)


def check_nothing_is_lost(text: str, words: list[str], space: Space) -> None:
    """Everything in the document, and every --set, is in the resolved space."""
    resolved, document = space.to_dict(), parse_yaml(text, "again")
    said = {word.partition("=")[0].strip() for word in words}

    def overridden(*path):
        *place, key = path  # a length by `--set` replaces the other one of the same place
        names = {key, *{"steps": ["epochs"], "epochs": ["steps"], "min_steps": ["steps"]}.get(key, [])}
        wholes = {".".join([*place, name]) for name in names} | {f"{'.'.join(path[:2])}.{name}" for name in names}
        return bool((names | wholes) & said)

    for top, value in document.items():
        if top in ARM_GROUPS:
            place = 0 if top == "teachers" else -1
            for arm, own in (value or {}).items():
                pairs = [name for name in space.methods if (space.pairs[name][place] if space.pairs else name) == arm]
                assert pairs, (top, arm)
                for section, keys in (own or {}).items():
                    for key, asked in (keys or {}).items():
                        if not overridden(top, arm, section, key) and key not in ("path", "root"):
                            assert all(same(asked, resolved["methods"][pair][section][key]) for pair in pairs), key
        elif top in SECTIONS or top in ("resources", "search", "labels"):
            for key, asked in (value or {}).items():
                if not overridden(top, key) and key not in ("path", "root"):
                    assert same(asked, resolved[top][key]), (top, key)
        elif top == "references":
            assert overridden(top) or list(dict.fromkeys(value or [])) == resolved[top]
        elif top != "description" and not overridden(top):
            assert same(value, resolved[top]), top
    for word in words:
        key, _, value = word.partition("=")
        *above, last = key.strip().split(".")
        if last in ("path", "root", "description", "references") or (above and above[0] in ARM_GROUPS):
            continue
        homes = [resolved[section] for section in (*SECTIONS, "resources", "search", "labels") if resolved.get(section)]
        homes = [resolved[above[0]]] if above else [resolved, *homes]
        assert any(last in home and same(parse_yaml(value, "word"), home[last]) for home in homes), word


def no_answer(number, frame):
    raise TimeoutError(f"no answer within {SECONDS} s")


def fuzz(seed, count, names, capsys, monkeypatch, folder: Path):
    """Ask `plan` about so many generated spaces; returns how many were accepted."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("D2L_DATA", raising=False)
    draw, accepted = random.Random(seed), 0
    texts = {name: path.read_text() for name, _, path in list_spaces() if name in names}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = folder / "space.yaml"
    guard = signal.signal(signal.SIGALRM, no_answer)
    try:
        for number in range(count):
            text = mutated(texts[draw.choice(sorted(texts))], draw)
            words = overrides(text, draw)
            path.write_text(text, encoding="utf-8", errors="surrogatepass")
            asked = ["plan", "--space", "space.yaml", *(["--set", *words] if words else [])]
            signal.alarm(SECONDS)
            try:
                code = cli.main(asked)
                said = capsys.readouterr()
                assert code in (0, 2), (number, code, said.err)
                if code == 2:
                    assert said.err.startswith("error: ") and "Traceback" not in said.err, (number, said.err, text)
                    lines = said.err.strip().splitlines()
                    assert len(lines) <= 4 and len(said.err) < 3000, (number, said.err)
                else:
                    check_nothing_is_lost(text, words, load_space("space.yaml", words))
                    accepted += 1
            except BaseException:
                kept = Path(tempfile.gettempdir()) / "d2l_study-fuzzed-space.yaml"
                kept.write_text(text, encoding="utf-8", errors="surrogatepass")
                print(f"number {number} of seed {seed}: {kept}, --set {words}")
                raise
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, guard)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY, f"{grown:,} bytes more than before"
    assert not (folder / "runs").exists()
    return accepted


def test_some_generated_spaces_are_answered_and_nothing_of_them_is_lost(capsys, monkeypatch, tmp_path):
    accepted = fuzz(3, 80, SMALL, capsys, monkeypatch, tmp_path)
    assert 8 <= accepted <= 60  # of both there are enough to mean something


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_many_generated_spaces_are_answered_and_nothing_of_them_is_lost(seed, capsys, monkeypatch, tmp_path):
    names = {name for name, _, _ in list_spaces()}
    assert fuzz(100 + seed, 400, names, capsys, monkeypatch, tmp_path) > 20
