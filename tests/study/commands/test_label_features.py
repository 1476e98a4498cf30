"""`label` with models of vectors of a study: the numbers are the study's, parts are told, mistakes answered."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import feature_files as files
import numpy as np
import pandas as pd
import pytest
import torch
from make_trial_request import train_kept_model, train_vector_pair

from d2l_study.cli import main
from d2l_study.data import DATASETS, FeatureBags, MnistBags
from d2l_study.inference import feature_label
from d2l_study.learning import TeacherConfig
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage

TEACHER, STUDENT, PATCHES, THINNED = ("ce" * 10, "5d" * 10, "ba" * 10, "7a" * 10)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort in torchmil's folders, and `runs` with a teacher and its student of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cohort")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(folder / "cache"))
        for slide, label in files.cohort(15, (12, 9, 30, 20)):
            files.torchmil(folder / "data", slide, label)
        data = FeatureBags(path=str(folder / "data"), folds=3)
        train_vector_pair(folder / "runs", TEACHER, STUDENT, data)
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(place / "cache"))


def _label(place: Path, config: str, out: Path, *words: str | Path) -> int:
    return main(["label", "--root", str(place / "runs"), "--run", config[:8], "--out", str(out), *map(str, words)])


def _bags(out: Path) -> dict[str, dict[str, str]]:
    with (out / "bags.csv").open(newline="", encoding="utf-8") as file:
        return {row["bag"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("config", [TEACHER, STUDENT])
def test_the_scores_of_the_test_slides_are_those_that_the_study_committed(
    place: Path, tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _label(place, config, tmp_path / "out", place / "data") == 0
    said = capsys.readouterr().out
    ledger = Ledger(LocalStorage(place / "runs"))
    committed = pd.read_parquet(io.BytesIO(ledger.read_file(config, 0, "predictions.parquet")))
    committed = committed[committed["split"] == "test"]
    frame, bags = pd.read_parquet(tmp_path / "out/scores.parquet"), _bags(tmp_path / "out")
    names = FeatureBags(path=str(place / "data"), folds=3).load_pool().names
    of_bags = committed[committed["level"] == "bag"]
    assert {row["bag"] for row in bags.values() if row["part"] == "test"} == {names[b] for b in of_bags["bag_index"]}
    for number, logit, label in zip(of_bags["bag_index"], of_bags["logit"], of_bags["label"], strict=True):
        assert float(bags[names[number]]["logit"]) == pytest.approx(logit, abs=1e-4)
        assert bags[names[number]]["label"] == str(label)
        mine = committed[(committed["level"] == "instance") & (committed["bag_index"] == number)]
        scored = frame[frame["slide"] == names[number]]
        np.testing.assert_allclose(scored["logit"], mine["logit"], atol=1e-4)
        assert scored["truth"].tolist() == mine["label"].tolist()
    row = ledger.read(config, 0)["row"]
    known = f"{row['test_instances']} known vectors"
    assert (
        f"test:     {row['test_bags']} bags that this model was tested on: instance AUC {row['instance_auc']:.3f}, "
        f"within bags {row['instance_auc_within']:.3f} ({known}), bag AUC {row['bag_auc']:.3f}\n" in said
    )
    assert f"training: {row['train_bags']} bags that this model was trained on: " in said
    assert "of 12 dimensions of 15 slides\n" in said and f"bags:     {tmp_path / 'out' / 'bags.csv'}" in said


def test_bags_that_num_bags_left_over_are_not_called_trained_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = FeatureBags(path=str(place / "data"), folds=3, num_bags=2, unlabelled_bags=1)
    teacher = TeacherConfig(extractor="mlp", feature_width=16, steps=2, eval_every=1)
    train_kept_model(place / "runs", THINNED, data, teacher=teacher)
    capsys.readouterr()
    assert _label(place, THINNED, tmp_path / "out", place / "data") == 0
    said = capsys.readouterr().out
    pool = data.load_pool()
    made = data.replicate(pool, 0, 5)
    of = {"training": made.train, "unlabelled": made.unlabelled, "validation": made.val, "test": made.test}
    expected = dict.fromkeys(pool.names, "unused")
    for part, bags in of.items():
        expected |= {pool.names[b]: part for b in bags.number}
    assert {name: row["part"] for name, row in _bags(tmp_path / "out").items()} == expected
    assert sorted(expected.values()) == sorted(
        ["training"] * 2 + ["unlabelled"] + ["unused"] * 2 + ["validation"] * 5 + ["test"] * 5
    )
    for line in ("training: 2 bags that this model was trained on: ",
                 "unlabelled: 1 bag that this model was trained on without their labels: ",
                 "unused:   2 bags of this model's data that it was not trained, selected or tested on: "):  # fmt: skip
        assert line in said
    (unused,) = [name for name, part in expected.items() if part == "unused"][:1]
    assert _label(place, THINNED, tmp_path / "one", place / "data/features" / f"{unused}.npy") == 0
    assert "the model saw none of these files" in capsys.readouterr().out


def test_new_slides_of_other_layouts_are_of_no_part(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = [files.make_slide(f"n{i}", 8 + i, positive=True, seed=9) for i in range(3)]
    files.clam_pt(tmp_path / "pt_files", new[0])
    files.nnmil(tmp_path / "h5", new[1])
    files.npz(tmp_path, new[2])
    (tmp_path / "t.csv").write_text("slide_id,path\nsecond,h5/n1.h5\n")
    words = [tmp_path / "pt_files", tmp_path / "t.csv", tmp_path / "n2.npz"]
    assert _label(place, STUDENT, tmp_path / "out", *words) == 0
    said = capsys.readouterr().out
    frame = pd.read_parquet(tmp_path / "out/scores.parquet")
    assert frame["slide"].tolist() == ["n0"] * 8 + ["second"] * 9 + ["n2"] * 10
    np.testing.assert_array_equal(frame[["x", "y"]][8:], np.concatenate([slide.coords for slide in new[1:]]))
    assert frame["truth"][:17].isna().all() and frame["truth"][17:].tolist() == new[2].truth.tolist()
    assert "others:   3 bags that are not of this model's data: instance AUC " in said and "(10 known vectors)" in said
    assert "test:" not in said and all(row["part"] == "" for row in _bags(tmp_path / "out").values())
    assert "the model saw none of these files; only evaluate recognises copies" in said


def test_a_data_set_that_has_moved_is_named_by_data(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = (place / "data").rename(place / "away")
    try:
        assert _label(place, STUDENT, tmp_path / "bare", away) == 0
        said = capsys.readouterr().out
        assert "the model's own data are not known here: data.path: " in said and "others:   15 bags" in said
        assert _label(place, STUDENT, tmp_path / "known", away, "--data", away) == 0
        assert "that this model was tested on" in capsys.readouterr().out
        files.torchmil(away, files.make_slide("s99", 3), 0)
        assert _label(place, STUDENT, tmp_path / "more", away, "--data", away) == 0
        said = capsys.readouterr().out
        assert "data set is no longer what it was trained on" in said and "tested on" not in said
        for part in ("features", "labels", "patch_labels", "coords"):
            (away / part / "s99.npy").unlink()
        assert _label(place, STUDENT, tmp_path / "no", away, "--data", tmp_path) == 2
        assert "--data: data.path: " in capsys.readouterr().err
        assert not (tmp_path / "no").exists()
    finally:
        away.rename(place / "data")


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, left = feature_label.score_input, [2]

    def interrupted(*given: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return right(*given)

    monkeypatch.setattr(feature_label, "score_input", interrupted)
    words = [place / "data/features" / f"s{i}.npy" for i in range(4)]
    out = tmp_path / "out"
    assert _label(place, TEACHER, out, *words) == 130
    said = capsys.readouterr().err
    assert said == (
        f"\nStopped; 21 of 71 vectors of scores.parquet scored are kept in {out}, and the same command goes on from "
        "there.\n"
    )
    left[0] = 2
    assert _label(place, TEACHER, out, *words) == 0
    assert "21 of 71 vectors are there already" in capsys.readouterr().out
    left[0] = 4
    assert _label(place, TEACHER, tmp_path / "whole", *words) == 0
    assert sorted(path.name for path in out.iterdir()) == ["bags.csv", "scores.parquet"]
    for name in ("bags.csv", "scores.parquet"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def _of_another_encoder(folder: Path) -> Path:
    return files.trident(folder, files.make_slide("a", 5, width=20))


def _with_nan(folder: Path) -> Path:
    slide = files.make_slide("a", 5)
    slide.vectors[3, 2] = np.nan
    return files.npy(folder, slide)


def _coordinates(folder: Path) -> Path:
    folder.mkdir()
    return files.clam_patches(folder, files.make_slide("a", 5))


def _patches(folder: Path) -> Path:
    folder.mkdir()
    np.save(folder / "a.npy", np.zeros((4, 1, 28, 28), np.uint8))
    return folder / "a.npy"


def _pickle(folder: Path) -> Path:
    folder.mkdir()
    return files.trident_pt(folder, files.make_slide("a", 5))


def _cut_short(folder: Path) -> Path:
    path = files.clam_h5(folder, files.make_slide("a", 5))
    path.write_bytes(path.read_bytes()[:2000])
    return path


@pytest.mark.parametrize(
    ("write", "words"),
    [(_of_another_encoder, "a.h5: vectors of 20 dimensions; the model takes 12"),
     (_with_nan, "1 of 5 vectors hold NaN"),
     (_coordinates, "coordinates of tiles, but no features"), (_patches, "is of type uint8 (pixels?"),
     (_pickle, "a.pt: an array of numpy as a pickle"), (_cut_short, "a.h5: cut short"),
     (lambda folder: folder, "in: no such file or folder")],
)  # fmt: skip
def test_wrong_inputs_are_answered_and_nothing_is_written(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Any, words: str
) -> None:
    right = place / "data/features/s0.npy"
    assert _label(place, STUDENT, tmp_path / "out", right, write(tmp_path / "in")) == 2
    error = capsys.readouterr().err
    assert words in error and "Traceback" not in error and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--stride", "3"), "--stride: this model labels feature vectors"), (("--data", "nowhere"), "is not a folder"),
     (("--out", "data/out"), "lies in the folder")],
)  # fmt: skip
def test_wrong_options_are_answered(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    assert _label(place, STUDENT, tmp_path / "out", "data", *words) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists() and not Path("data/out").exists()


def test_a_model_of_patches_is_not_given_features(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = MnistBags(num_bags=6, mean_bag_size=3, test_bags=20).resolved()
    if not Ledger(LocalStorage(place / "runs")).storage.exists(Ledger.config_key(PATCHES)):
        train_kept_model(place / "runs", PATCHES, data, teacher=TeacherConfig(steps=2, eval_every=2, feature_width=16))
    slide = files.make_slide("a", 5)
    for path in (files.trident(tmp_path / "h5", slide), files.clam_pt(tmp_path / "pt", slide)):
        assert _label(place, PATCHES, tmp_path / "out", path) == 2
        assert f"{path}: a feature file, but this model labels patches" in capsys.readouterr().err
    assert _label(place, PATCHES, tmp_path / "out", tmp_path / "h5") == 2
    assert "it has feature files, but this model labels patches" in capsys.readouterr().err
    assert _label(place, PATCHES, tmp_path / "out", files.npy(tmp_path, slide)) == 2
    assert "a.npy" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_encoder_of_the_training_is_stored_and_another_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    slides = files.cohort(9, (5, 9))
    for slide, _ in slides:
        files.trident(tmp_path / "20x_256px_0px_overlap/features_uni_v1", slide)
    files.table(tmp_path / "t.csv", slides)
    data = DATASETS["features"](path=str(tmp_path / "t.csv"), folds=3)
    train_kept_model(tmp_path / "runs", TEACHER, data, teacher=TeacherConfig(
        extractor="none", feature_width=16, steps=2, eval_every=2))  # fmt: skip
    other = files.trident(tmp_path / "other", files.make_slide("x", 4), encoder="conch_v15")
    assert _label(tmp_path, TEACHER, tmp_path / "out", other) == 2
    assert "encoder 'conch_v15'; the model was trained on vectors of encoder 'uni_v1'" in capsys.readouterr().err
    coarse = files.trident(tmp_path / "coarse", files.make_slide("x", 4), magnification=10)
    assert _label(tmp_path, TEACHER, tmp_path / "out", coarse) == 0
    said = capsys.readouterr().out
    assert "tiles of 256 px at 10×; the model was trained on tiles of 256 px at 20×" in said
    assert _label(tmp_path, TEACHER, tmp_path / "own", tmp_path / "t.csv") == 0
    assert "that this model was tested on" in capsys.readouterr().out


def test_after_a_study_of_patients_a_table_gives_patients_and_a_folder_slides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slide alone has no label of its patient, and no AUC is of such labels."""
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    (tmp_path / "truth").mkdir()
    rows = ["slide_id,patient,label,patch_labels"]
    slides = {f"s{i}": files.make_slide(f"s{i}", 5 + i, positive=i % 4 > 1) for i in range(24)}
    for i, (name, slide) in enumerate(slides.items()):
        files.clam_h5(tmp_path / "features", slide)
        np.save(tmp_path / f"truth/{name}.npy", slide.truth)
        rows.append(f"{name},p{i // 2},{int(i % 4 > 1)},truth/{name}.npy")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    data = FeatureBags(path=str(tmp_path / "t.csv"), bag="patient", folds=3)
    train_kept_model(tmp_path / "runs", TEACHER, data, teacher=TeacherConfig(
        extractor="mlp", feature_width=16, steps=4, eval_every=2))  # fmt: skip
    committed = pd.read_parquet(io.BytesIO(Ledger(LocalStorage(tmp_path / "runs")).read_file(
        TEACHER, 0, "predictions.parquet")))  # fmt: skip
    committed = committed[(committed["split"] == "test") & (committed["level"] == "bag")]
    names = data.load_pool().names
    assert _label(tmp_path, TEACHER, tmp_path / "patients", tmp_path / "t.csv") == 0
    patients = _bags(tmp_path / "patients")
    assert len(patients) == 12 and all(row["slides"] == "2" for row in patients.values())
    for number, logit in zip(committed["bag_index"], committed["logit"], strict=True):
        assert float(patients[names[number]]["logit"]) == pytest.approx(logit, abs=1e-4)
    said = capsys.readouterr().out
    assert "bag AUC" in said and "scored as a bag each" not in said
    assert {row["label"] for row in patients.values()} == {"0", "1"}
    assert _label(tmp_path, TEACHER, tmp_path / "slides", tmp_path / "features") == 0
    said = capsys.readouterr().out
    assert "bag AUC" not in said and "24 slides scored as a bag each: s0" in said
    single = _bags(tmp_path / "slides")
    assert len(single) == 24 and {row["label"] for row in single.values()} == {""}
    assert {row["part"] for row in single.values()} == {"training", "validation", "test"}
    frame = pd.read_parquet(tmp_path / "slides/scores.parquet")
    for name, slide in slides.items():
        assert frame[frame["slide"] == name]["truth"].tolist() == slide.truth.tolist()


def test_a_set_of_the_package_tells_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    train_kept_model(tmp_path / "runs", TEACHER, FeatureBags(path="musk1"), teacher=TeacherConfig(
        extractor="mlp", feature_width=16, steps=4, eval_every=2))  # fmt: skip
    assert _label(tmp_path, TEACHER, tmp_path / "out", "musk1") == 0
    said = capsys.readouterr().out
    ledger = Ledger(LocalStorage(tmp_path / "runs"))
    assert f"bag AUC {ledger.read(TEACHER, 0)['row']['bag_auc']:.3f}" in said.split("test:")[1].splitlines()[0]
    assert len(pd.read_parquet(tmp_path / "out/scores.parquet")) == 476
    bags = _bags(tmp_path / "out")
    assert len(bags) == 92 and {row["part"] for row in bags.values()} == {"training", "validation", "test"}
