"""Plans of studies of feature vectors: what `plan` says of them, and keys that stand in a space."""

import feature_files as files
import pytest

from d2l_study.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab").mkdir()
    slides = files.cohort(12)
    for slide, label in slides:
        files.torchmil(tmp_path / "lab" / "mil", slide, label)
        files.trident(tmp_path / "lab" / "features", slide)
    files.table(tmp_path / "lab" / "slides.csv", slides)
    (tmp_path / "lab" / "fold.csv").write_text(
        "slide,fold_0,fold_1\n" + "".join(f"s{i},{'train' if i % 3 else 'test'},{'train' if i > 3 else 'test'}\n"
                                          for i in range(12))
    )  # fmt: skip
    return tmp_path


def plan(folder, data, more="", *options):
    space = folder / "lab" / "ours.yaml"
    space.write_text(
        f"description: ours\ndata: {{dataset: features, folds: 3, {data}}}\nteacher: {{extractor: mlp}}\n"
        f"methods: {{plain: {{}}}}\n{more}"
    )
    return main(["plan", "--space", str(space), "--root", str(folder / "root"), *options])


def test_a_plan_says_what_the_vectors_are(folder, capsys):
    assert plan(folder, "path: slides.csv", "replicates: 3\n") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "data: features: 12 bags (6 positive, 6 negative)" in text and "12 slides, 135 instances" in text
    assert "vectors of 12 dimensions, float32; encoder uni_v1, tiles of 256 px at 20×" in text
    assert "instances of a bag 1 to 30, median 7; places of tiles of their top-left in level-0 pixels" in text
    assert "column slide_id is taken as bag" in text and "train: 4 bags" in text


@pytest.mark.parametrize("columns, more, expected", [
    ("slide_id", "", "each bag a group of its own (no patients are named); 12 slides"),
    ("slide_id,patient", "", "each bag a group of its own; 12 slides"),
    ("slide_id,patient", ", bag: patient", "each a patient with all slides; 12 slides"),
])  # fmt: skip
def test_a_plan_says_whether_patients_are_named(columns, more, expected, folder, capsys):
    rows = [f"s{i}{',p' + str(i) if 'patient' in columns else ''},{i % 2}" for i in range(12)]
    (folder / "lab" / "slides.csv").write_text("\n".join([f"{columns},label", *rows]) + "\n")
    assert plan(folder, f"path: slides.csv{more}", "replicates: 3\n") == 0
    assert expected in " ".join(capsys.readouterr().out.split())


def test_paths_of_a_space_begin_at_its_folder_and_names_of_embedded_sets_stay(folder, capsys):
    assert plan(folder, "path: slides.csv, splits: fold.csv", "replicates: 2\n") == 0
    assert "2 splits: columns fold_0, fold_1" in capsys.readouterr().out
    assert plan(folder, "path: mil", "replicates: 1\n") == 0
    assert "12 bags (6 positive, 6 negative)" in capsys.readouterr().out
    assert main(["plan", "--space", str(folder / "lab" / "ours.yaml"), "--root", str(folder / "root2"),
                 "--set", "data.path=musk1", "--set", "data.folds=10"]) == 0  # fmt: skip
    assert "92 bags (47 positive, 45 negative)" in capsys.readouterr().out


@pytest.mark.parametrize("data, more, expected", [
    ("path: slides.csv, splits: fold.csv", "replicates: 3\n", "2 replicates are given by the data's own folds"),
    ("path: [slides.csv, mil]", "", "a study reads one"),
    ("path: slides.csv, splits: [fold.csv, slides.csv]", "", "a study reads its data in one way"),
    ("path: musk1", "", "data.folds: 3 does nothing: the data give 10 folds; leave data.folds out"),
    ("path: slides.csv, normalise: zscore", "", "expected one of standard, length, none"),
    ("path: slides.csv, white_above: 0.9", "", "data.white_above: unknown key"),
    ("path: slides.csv, positive: tumor", "", "no bag has the label 'tumor'"),
    ("path: slides.csv, lable_column: x", "", "unknown key; did you mean 'label_column'"),
    ("path: slides.csv", "references: [cam]\nstudent: {network: mlp}\n", "cam is trained on whole images"),
])  # fmt: skip
def test_what_a_space_may_not_say(data, more, expected, folder, capsys):
    assert plan(folder, data, more) == 2
    assert expected in capsys.readouterr().err


def test_normalisations_are_an_axis(folder, capsys):
    assert plan(folder, "path: slides.csv, normalise: [standard, length, none]", "replicates: 1\n") == 0
    assert "normalise ∈ {standard, length, none}" in capsys.readouterr().out


def test_a_plan_says_how_many_values_where_they_are_many(folder, capsys):
    drawn = "{low: 0.001, high: 0.01}"
    assert plan(folder, "path: slides.csv", "search: {trials: 12}\nreplicates: 1\n", "--set",
                f"teacher.learning_rate={drawn}", "teacher.steps={choices: [10, 20]}") == 0  # fmt: skip
    text = capsys.readouterr().out
    assert "learning_rate ∈ 12 values from 0.00" in text and "steps ∈ {10, 20}" in text


def test_neighbours_of_vectors_without_places_are_refused_in_words_of_feature_files(folder, capsys):
    space = folder / "lab" / "students.yaml"
    space.write_text(
        "description: ours\ndata: {dataset: features, path: musk1}\nstudent: {neighbours: 2}\n"
        "teachers: {plain: {}}\nmethods: {near: {}}\nreplicates: 3\n"
    )
    assert main(["plan", "--space", str(space), "--root", str(folder / "root")]) == 2
    said = capsys.readouterr().err
    assert "student.neighbours: 2" in said and "have none (no coords in their feature files)" in said
