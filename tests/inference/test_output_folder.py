"""A command that fails, or is stopped, leaves no folder in which nothing is."""

import pytest

from d2l_study.errors import UserError
from d2l_study.inference.output_folder import make_folder, output_folder, unused_folders_removed


@pytest.mark.parametrize("error", [UserError("wrong"), KeyboardInterrupt(), OSError("full")])
def test_folders_that_were_made_for_nothing_go(tmp_path, error):
    (tmp_path / "there").mkdir()

    @unused_folders_removed()
    def command():
        make_folder(tmp_path / "there")
        make_folder(tmp_path / "new" / "below")
        make_folder(tmp_path / "kept" / "below")
        (tmp_path / "kept" / "scores.csv").write_text("a")
        raise error

    for _ in range(2):  # the second time like the first
        with pytest.raises(type(error)):
            command()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "there"]
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["scores.csv"]


def test_what_ends_well_keeps_its_folder(tmp_path):
    with unused_folders_removed():
        make_folder(tmp_path / "new")
    make_folder(tmp_path / "by_itself")
    with pytest.raises(ValueError, match="later"), unused_folders_removed():
        raise ValueError("later")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by_itself", "new"]


def test_a_new_folder_is_not_named_as_a_file_but_one_that_is_there_may_be(tmp_path):
    (tmp_path / "there.csv").mkdir()
    for name in ("there.csv", "v1.2", "scores"):
        assert output_folder(tmp_path / name) == tmp_path / name
    with pytest.raises(UserError, match=r"q\.PARQUET: is named as a file; expected a folder"):
        output_folder(tmp_path / "q.PARQUET")
