"""What a study says of the code that made it: commit and local difference, earlier commands too."""

import json
import shutil
import subprocess

import pytest

from d2l_study.study.ledger import provenance

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="no git")


@pytest.fixture(autouse=True)
def _forgetful():
    """What a process asked of git once it does not ask again."""
    yield
    provenance.commit.cache_clear()
    provenance.local_difference.cache_clear()


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    (folder / "d2l_study").mkdir(parents=True)
    (folder / "d2l_study" / "code.py").write_text("a = 1\n")
    (folder / "d2l_study" / "more.py").write_text("b\n")
    (folder / "notes.txt").write_text("not code\n")
    (folder / ".gitignore").write_text("*.pyc\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    return folder


def git(folder, *words):
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout


def test_a_clean_checkout_and_an_installed_package_have_no_difference(checkout, tmp_path):
    head = git(checkout, "rev-parse", "HEAD").strip()
    (checkout / "d2l_study" / "code.pyc").write_text("ignored")
    assert provenance.commit(checkout) == (head, False) and provenance.local_difference(checkout) is None
    assert provenance.commit(tmp_path) == (None, False) and provenance.local_difference(tmp_path) is None


def test_the_difference_makes_the_tree_again(checkout, tmp_path):
    (checkout / "d2l_study" / "code.py").write_text("a = 2\n")
    git(checkout, "add", "d2l_study/code.py")
    (checkout / "d2l_study" / "more.py").unlink()
    (checkout / "notes.txt").write_text("changed, and not code\n")
    (checkout / "d2l_study" / "größe.py").write_text("c = 3\n")  # not known to git, and code
    (checkout / "elsewhere.txt").write_text("not code")
    found = provenance.local_difference(checkout)
    assert provenance.commit(checkout)[1] and not found.cut and found.to_dict()["bytes"] == len(found.patch)
    git(tmp_path, "clone", "-q", str(checkout), "again")
    (tmp_path / found.name).write_bytes(found.patch)
    git(tmp_path / "again", "apply", str(tmp_path / found.name))
    names = {p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*.*") if ".git/" not in str(p)}
    assert {str(name) for name in names} - {".git"} == {
        "d2l_study/code.py",
        "d2l_study/größe.py",
        ".gitignore",
        "notes.txt",
    }
    assert (tmp_path / "again" / "notes.txt").read_text() == "not code\n"
    assert (tmp_path / "again" / "d2l_study" / "code.py").read_text() == "a = 2\n"
    assert (tmp_path / "again" / "d2l_study" / "größe.py").read_text() == "c = 3\n"


def test_a_new_file_of_code_alone_is_a_difference(checkout):
    (checkout / "d2l_study" / "new.py").write_text("d = 4\n")
    assert provenance.commit(checkout)[1]
    assert b"+d = 4" in provenance.local_difference(checkout).patch


def test_a_long_difference_is_cut_and_says_so(checkout):
    (checkout / "d2l_study" / "code.py").write_text("0123456789\n" * 200_000)
    found = provenance.local_difference(checkout)
    assert found.cut and len(found.patch) == provenance.MOST_BYTES


def test_what_is_collected_names_the_difference_and_can_be_written(checkout, monkeypatch):
    (checkout / "d2l_study" / "code.py").write_text("other\n")
    found = provenance.local_difference(checkout)
    monkeypatch.setattr(provenance, "commit", lambda: ("0" * 40, True))
    monkeypatch.setattr(provenance, "local_difference", lambda: found)
    origin = json.loads(json.dumps(provenance.collect()))
    assert origin["local_difference"] == {"file": found.name, "bytes": len(found.patch), "cut": False}
    assert origin["dirty"] and origin["code_version"].endswith("+0000000.dirty")
    assert origin["packages"]["torch"] != "absent" and "absent" not in origin["packages"].values()


def test_earlier_commands_are_kept_once_each():
    def origin(host):
        return {"host": host, "commit": "a"}

    resolved: dict = {}
    for host in ("x", "x", "y", "x", "z"):
        resolved = {"earlier": provenance.earlier_commands(resolved, origin(host)), "provenance": origin(host)}
    assert [one["host"] for one in (*resolved["earlier"], resolved["provenance"])] == ["y", "x", "z"]
    many = {"earlier": [origin(str(n)) for n in range(1000)], "provenance": origin("last")}
    assert len(provenance.earlier_commands(many, origin("now"))) == provenance.MOST_EARLIER
