"""Build a release and try it as its users would: `make release`.

    python .ci/release.py --out dist

Wheel and source archive are built, the wheel from the archive. The wheel is installed, at the versions of
`constraints.txt`, into an environment of its own with an empty HOME, and runs the first study in a small form, in a
folder outside the checkout. Anything that is not as it should be ends it with a line and exit code 1. Nothing is
uploaded.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIRST_STUDY = "first_study"
SMALL = [
    "data.num_bags=[10,20]", "data.unlabelled_bags=20", "data.test_bags=100", "teacher.steps=20", "student.steps=10",
]  # fmt: skip
"""The first study in some seconds."""


class ReleaseError(Exception):
    """What is wrong with the release."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="where wheel and archive go")
    out: Path = parser.parse_args().out.resolve()  # commands run in folders of their own
    try:
        version = declared_version()
        wheel = build(out, version)
        check_wheel(wheel, version)
        with tempfile.TemporaryDirectory(prefix="release-") as place:
            try_wheel(wheel, Path(place), version)
    except ReleaseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{version}: wheel and archive are in {out}")
    return 0


def declared_version() -> str:
    """The package's version, which changelog and citation must have too."""
    source = (ROOT / "d2l_study" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r"^__version__ = (.+)$", source, re.MULTILINE)
    version = str(ast.literal_eval(found[1])) if found else ""
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    for file, other in (("CHANGELOG.md", heading), ("CITATION.cff", cited)):
        if other is None or other[1] != version:
            raise ReleaseError(f"{file}: version {other[1] if other else 'missing'}; d2l_study/__init__.py: {version}")
    return version


def build(out: Path, version: str) -> Path:
    """Wheel and archive; returns the wheel."""
    environment = {**os.environ, "PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    run([sys.executable, "-m", "build", "--outdir", str(out), str(ROOT)], ROOT, environment, 600)
    wheel, archive = out / f"d2l_study-{version}-py3-none-any.whl", out / f"d2l_study-{version}.tar.gz"
    for file in (wheel, archive):
        if not file.is_file():
            raise ReleaseError(f"{file}: was not built")
    return wheel


def check_wheel(wheel: Path, version: str) -> None:
    """What the wheel holds, and what it says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = archive.read(f"d2l_study-{version}.dist-info/METADATA").decode()
    for needed in (f"d2l_study/search_spaces/{FIRST_STUDY}.yaml", "d2l_study/data/mnist/train-images-idx3-ubyte.gz"):
        if needed not in names:
            raise ReleaseError(f"{wheel.name}: lacks {needed}")
    strange = [name for name in names if not re.match(rf"d2l_study/|analysis/|d2l_study-{re.escape(version)}", name)]
    if strange:
        raise ReleaseError(f"{wheel.name}: holds {strange[0]}, which is no part of the package")
    if (offered := set(re.findall(r"^Provides-Extra: (\S+)$", metadata, re.MULTILINE))) != declared_extras():
        raise ReleaseError(f"{wheel.name}: offers the extras {sorted(offered)}, expected {sorted(declared_extras())}")


def declared_extras() -> set[str]:
    """The extras of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["optional-dependencies"])


def try_wheel(wheel: Path, place: Path, version: str) -> None:
    """Install the wheel in a new environment, and run the first study there. place: an empty folder."""
    home, work = place / "home", place / "work"
    home.mkdir()
    work.mkdir()
    kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key in ("PATH", "LANG")}
    environment = {**kept, "HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
    run([sys.executable, "-m", "venv", str(place / "env")], work, environment, 120)
    installed = place / "env" / "bin"
    constraints = str(ROOT / "constraints.txt")
    run(
        [str(installed / "python"), "-m", "pip", "install", "-q", "-c", constraints, str(wheel)],
        work,
        environment,
        1200,
    )

    d2l = str(installed / "d2l")
    where = run([str(installed / "python"), "-c", "import d2l_study; print(d2l_study.__file__)"], work, environment)
    if not where.startswith(str(place)):
        raise ReleaseError(f"d2l_study is imported from {where.strip()}, not from the new environment")
    if version not in (said := run([d2l, "--version"], work, environment)):
        raise ReleaseError(f"d2l --version says {said.strip()!r}, expected {version}")
    said = run([d2l, "--help"], work, environment)
    if missing := [extra for extra in sorted(declared_extras()) if f"[{extra}]" not in said]:
        raise ReleaseError(f"d2l --help does not name the extra [{missing[0]}]")
    study = [d2l, "run", "--space", FIRST_STUDY, "--study", "small", "--replicates", "2", "--set", *SMALL]
    table = run(study, work, environment, 600)
    if not all(row in table for row in ("| none ", "| vat ", "| none → student ", "| matched of none ")):
        raise ReleaseError(f"the first study printed no table:\n{table}")
    run([d2l, "figure", "small", "--kind", "curves", "--out", "auc.pdf"], work, environment)
    if not (work / "auc.pdf").read_bytes().startswith(b"%PDF"):
        raise ReleaseError("d2l figure wrote no figure")


def run(command: list[str], folder: Path, environment: dict[str, str], seconds: float = 120) -> str:
    """The output of a command; `ReleaseError` with the end of what it said, if it fails or takes longer."""
    print("+", " ".join(command), flush=True)
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ReleaseError(f"{command[0]}: took more than {seconds:g} s") from None
    if done.returncode:
        raise ReleaseError(f"{command[0]}: exit code {done.returncode}\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
