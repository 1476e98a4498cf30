"""What a release says of itself in several places is the same in all of them."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import d2l_study
from d2l_study import script

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".ci"))

import release  # noqa: E402


def test_the_version_is_that_of_changelog_and_citation():
    assert release.declared_version() == d2l_study.__version__


def test_a_version_that_differs_is_refused(tmp_path, monkeypatch):
    for name in ("CHANGELOG.md", "CITATION.cff"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "d2l_study").mkdir()
    (tmp_path / "d2l_study" / "__init__.py").write_text('__version__ = "9.9"\n', encoding="utf-8")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    with pytest.raises(release.ReleaseError, match=r"CHANGELOG.md: version .*; d2l_study/__init__.py: 9.9"):
        release.declared_version()


def test_a_folder_that_is_named_from_here_is_found_from_the_folder_where_the_wheel_is_tried(tmp_path, monkeypatch):
    """`make release` says --out dist; commands that try the wheel run elsewhere."""
    tried = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["release.py", "--out", "dist"])
    monkeypatch.setattr(release, "build", lambda out, version: out / "d2l.whl")
    monkeypatch.setattr(release, "check_wheel", lambda wheel, version: None)
    monkeypatch.setattr(release, "try_wheel", lambda wheel, place, version: tried.append(wheel))
    assert release.main() == 0
    assert tried == [tmp_path / "dist" / "d2l.whl"]


def test_the_citation_has_what_its_format_asks_for():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0"
    assert cited["message"] and cited["title"] and cited["license"] == "MIT"
    assert all(author.get("name") or author.get("family-names") for author in cited["authors"])
    assert cited["authors"][0]["name"] in (ROOT / "LICENSE").read_text(encoding="utf-8")
    (paper,) = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Thiagarajan", "Kashyap", "Karagyris"]


def test_help_and_page_name_every_extra(capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    said = capsys.readouterr().out
    page = (ROOT / "docs" / "installation.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"[{extra}]" in said
        assert f"| `[{extra}]` |" in page
    assert set(re.findall(r"\[(\w+)\] ", said)) == set(project["optional-dependencies"])


def test_a_command_that_fails_ends_the_release_with_what_it_said(tmp_path):
    with pytest.raises(release.ReleaseError, match="exit code 3\nno such thing"):
        release.run([sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"], tmp_path, {})
