"""`evaluate` on vectors: the numbers are those of the loaded model, shared bags are found, mistakes answered."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import feature_files as files
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from make_trial_request import train_kept_model, train_vector_pair
from scored_bags import few_resamples
from sklearn.metrics import roc_auc_score

import d2l_study
from analysis.statistics.delong import delong_interval
from d2l_study.cli import main
from d2l_study.data import FeatureBags
from d2l_study.data.features.embedded import embedded_file
from d2l_study.learning import TeacherConfig
from d2l_study.learning.metrics import probability
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage

MUSK, TEACHER, STUDENT = "a0" * 10, "ce" * 10, "5d" * 10
SIZES = (12, 9, 30, 20)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MUSK1 in two halves, two cohorts of slides of several patients, and `runs` with their models: three
    folds of MUSK1, a teacher and its student of the first cohort."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("evaluate")
    with np.load(embedded_file("musk1")) as file:
        arrays = dict(file)
    index, label = arrays["bag_index"], arrays["bag_label"]
    for name, parity in (("even", 0), ("odd", 1)):
        kept = np.arange(len(label)) % 2 == parity
        np.savez(folder / f"{name}.npz", features=arrays["features"][kept[index]], bag_label=label[kept],
                 bag_index=(np.cumsum(kept) - 1)[index[kept[index]]])  # fmt: skip
    for slide, positive in files.cohort(15, SIZES):
        files.torchmil(folder / "here", slide, positive)
    there = [(files.make_slide(f"T-{i:02d}", SIZES[i % 4], positive=i % 2 == 1, seed=9), i % 2) for i in range(24)]
    for slide, _ in there:
        files.npz(folder / "there", slide)
    rows = [f"{slide.name},{positive},P-{i // 2:02d}" for i, (slide, positive) in enumerate(there)]
    (folder / "there" / "slides.csv").write_text("slide,label,patient\n" + "\n".join(rows) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(folder / "cache"))
        teacher = TeacherConfig(extractor="mlp", feature_width=16, steps=60, eval_every=20)
        musk = FeatureBags(path=str(folder / "even.npz"), folds=3)
        for fold in range(3):
            train_kept_model(folder / "runs", MUSK, musk, replicate=fold, teacher=teacher)
        here = FeatureBags(path=str(folder / "here"), folds=3)
        train_vector_pair(folder / "runs", TEACHER, STUDENT, here)
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(place / "cache"))
    with few_resamples():
        yield


def _evaluate(place: Path, run: str, data: str | Path, *words: str | Path) -> int:
    return main(["evaluate", "--root", str(place / "runs"), "--run", run, "--data", str(data), *map(str, words)])


def _metrics(out: Path, kind: str = "value") -> pd.DataFrame:
    frame = pd.read_csv(io.StringIO((out / "metrics.csv").read_text()), keep_default_na=False, na_values=[""])
    frame[["at", "reason"]] = frame[["at", "reason"]].fillna("")
    return frame[frame["kind"] == kind].set_index(["model", "level", "metric", "at"])


def _bags_of(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    with np.load(path) as file:
        index = file["bag_index"]
        return [file["features"][index == b] for b in range(len(file["bag_label"]))], file["bag_label"]


# ---- the numbers
def test_the_auc_is_that_of_the_loaded_models_scores(place: Path, tmp_path: Path, capsys) -> None:
    assert _evaluate(place, MUSK[:8], place / "odd.npz", "--out", tmp_path / "out") == 0
    model = d2l_study.load(MUSK[:8], place / "runs")
    bags, label = _bags_of(place / "odd.npz")
    logit = model.bag_logits(bags)
    frame = _metrics(tmp_path / "out")
    area = frame.loc[(model.name, "bag", "auc", "")]
    assert area["value"] == pytest.approx(roc_auc_score(label, logit))
    assert (area["lower"], area["upper"]) == pytest.approx(delong_interval(label, logit)[1:], abs=1e-6)
    assert (area["units"], area["patients"], area["positives"]) == (46, 46, label.sum())
    called = logit > model.bag_threshold
    accuracy = frame.loc[(model.name, "bag", "accuracy", "model threshold"), "value"]
    assert accuracy == pytest.approx(np.mean(called == label))
    scaled = frame.loc[(model.name, "bag", "brier", "temperature"), "value"]
    assert scaled == pytest.approx(np.mean((probability(logit / model.record.temperature) - label) ** 2), rel=1e-5)
    printed = capsys.readouterr().out
    assert f"{area['value']:.3f}" in printed and "46 bags" in printed and "no bag is one that training" in printed
    assert max(map(len, printed.split("shared:")[1].split("written:")[0].splitlines())) <= 100
    assert "no instance labels" in printed

    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    whole = rows[rows["level"] == "bag"]
    np.testing.assert_allclose(whole["logit"], logit, atol=1e-5)
    assert whole["label"].tolist() == label.tolist() and whole["predicted"].tolist() == called.astype(int).tolist()
    single = rows[rows["level"] == "instance"]
    np.testing.assert_allclose(single["logit"], model.instance_logits(np.concatenate(bags)), atol=1e-5)
    assert single["label"].isna().all() and set(rows["model"]) == {model.name}


def test_evaluate_and_predict_give_the_same_rows(place: Path, tmp_path: Path) -> None:
    """Of slides with patients: the bags of both are slides, since the model's were."""
    assert _evaluate(place, STUDENT[:8], place / "there", "--out", tmp_path / "out") == 0
    words = ["predict", "--root", str(place / "runs"), "--run", STUDENT[:8], str(place / "there" / "slides.csv")]
    assert main([*words, "--out", str(tmp_path / "scores.parquet")]) == 0
    ours, theirs = (pd.read_parquet(path / "scores.parquet") for path in (tmp_path / "out", tmp_path))
    assert list(ours.columns) == [*theirs.columns, "label", "model"]
    np.testing.assert_allclose(ours["logit"], theirs["logit"], atol=1e-5)
    pd.testing.assert_frame_equal(ours[["level", "bag", "index", "source", "x", "y", "predicted"]],
                                  theirs[["level", "bag", "index", "source", "x", "y", "predicted"]])  # fmt: skip
    single = ours[ours["level"] == "instance"]
    expected = roc_auc_score(single["label"].astype(int), single["logit"])
    frame = _metrics(tmp_path / "out").droplevel("model")
    assert frame.loc[("instance", "auc", ""), "value"] == pytest.approx(expected)


def test_bags_of_one_patient_are_drawn_together(place: Path, tmp_path: Path) -> None:
    assert _evaluate(place, TEACHER[:8], place / "there", "--out", tmp_path / "out") == 0
    area = _metrics(tmp_path / "out").droplevel("model").loc[("bag", "auc", "")]
    assert (area["units"], area["patients"]) == (24, 12)
    assert area["interval"] == "bootstrap over patients" or np.isnan(area["lower"])


def test_an_exported_folder_gives_the_same_numbers(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    assert main(["export", "--root", str(place / "runs"), "--run", MUSK[:8], "--to", str(folder)]) == 0
    assert _evaluate(place, MUSK[:8], place / "odd.npz", "--out", tmp_path / "a") == 0
    assert _evaluate(place, str(folder), place / "odd.npz", "--out", tmp_path / "b") == 0
    ours, theirs = (_metrics(tmp_path / name).droplevel("model") for name in "ab")
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_comma_may_stand_in_the_name_of_a_models_folder(place: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "teacher, first,model"
    assert main(["export", "--root", str(place / "runs"), "--run", TEACHER[:8], "--to", str(folder)]) == 0
    for run, models in ((str(folder), 1), (f"{folder}, {STUDENT[:8]}", 2), (f"{STUDENT[:8]},{folder}", 2)):
        assert _evaluate(place, run, place / "there", "--out", tmp_path / "out") == 0
        values = _metrics(tmp_path / "out").index.get_level_values("model")
        assert values.nunique() == models
    capsys.readouterr()
    assert _evaluate(place, f"{tmp_path}/none, of these,{STUDENT[:8]}", place / "there") == 2
    assert "3 models; expected one, or two" in capsys.readouterr().err


# ---- two models, and ensembles
def test_a_model_against_itself_is_answered(place: Path, tmp_path: Path, capsys) -> None:
    assert _evaluate(place, f"{TEACHER[:8]},{TEACHER[:8]}", place / "there", "--out", tmp_path / "out") == 2
    assert "both are the same model" in capsys.readouterr().err


def test_a_teacher_against_its_student_is_paired(place: Path, tmp_path: Path) -> None:
    assert _evaluate(place, f"{TEACHER[:8]},{STUDENT[:8]}", place / "there", "--out", tmp_path / "out") == 0
    both, difference = _metrics(tmp_path / "out"), _metrics(tmp_path / "out", "difference")
    key = ("instance", "auc", "")
    first, second = (both.loc[(name, *key), "value"] for name in both.index.get_level_values("model").unique())
    assert difference.droplevel("model").loc[key, "value"] == pytest.approx(first - second)
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "Comparison" in page and "teacher" in page and "student" in page


def test_an_ensemble_stands_beside_its_members(place: Path, tmp_path: Path, capsys) -> None:
    assert _evaluate(place, MUSK[:8], place / "odd.npz", "--ensemble", "--out", tmp_path / "out") == 0
    _, label = _bags_of(place / "odd.npz")
    frame = _metrics(tmp_path / "out")
    alone = []
    for fold in range(3):
        rows = pd.read_parquet(tmp_path / "out" / "scores.parquet").query(
            f"level == 'bag' and model.str.endswith('r{fold:03d}')"
        )
        assert len(rows) == 46
        alone.append(rows["score"].to_numpy())
    whole = next(name for name in frame.index.get_level_values("model") if "×3" in name)
    assert frame.loc[(whole, "bag", "auc", ""), "value"] == pytest.approx(roc_auc_score(label, np.mean(alone, axis=0)))
    members = _metrics(tmp_path / "out", "members").loc[(whole, "bag", "auc", "")]
    areas = [roc_auc_score(label, score) for score in alone]
    assert (members["value"], members["sd"]) == pytest.approx((np.mean(areas), np.std(areas, ddof=1)))
    printed = capsys.readouterr().out
    assert "mean ± sd" in printed and "replicates 0, 1, 2" in printed


def test_two_models_that_read_the_data_otherwise_are_told_apart(place: Path, tmp_path: Path, capsys) -> None:
    """The first one's keys are used, as the note says, in either order."""
    cohort = _cohort(tmp_path / "in", [f"S{i}" for i in range(12)], [f"P{i // 4 * 2 + i % 2}" for i in range(12)])
    teacher = TeacherConfig(extractor="mlp", feature_width=8, steps=4, eval_every=2)
    for run, bag in (("a1" * 10, "slide"), ("b2" * 10, "patient")):
        data = FeatureBags(path=str(cohort), folds=3, bag=bag)
        train_kept_model(tmp_path / "runs", run, data, teacher=teacher)
    other = _cohort(tmp_path / "other", [f"T{i}" for i in range(12)], [f"Q{i // 4 * 2 + i % 2}" for i in range(12)], 8)
    for run, used, bags in (("a1a1,b2b2", "slide, not patient", 12), ("b2b2,a1a1", "patient, not slide", 6)):
        assert _evaluate(tmp_path, run, other) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"data.bag: {used}; --set data.bag=… names" in said and f": {bags} bags (" in said
    assert _evaluate(tmp_path, "b2b2,a1a1", other, "--set", "data.bag=slide") == 0
    assert "the data are read as" not in " ".join(capsys.readouterr().out.split())


# ---- bags that training has seen
def test_shared_bags_are_refused_left_out_or_allowed(place: Path, tmp_path: Path, capsys) -> None:
    """On its own data a fold may be evaluated on its test bags: then the AUC is the one that the study has."""
    even = place / "even.npz"
    words = (place, MUSK[:8], even, "--replicate", "1")
    assert _evaluate(*words) == 2
    error = capsys.readouterr().err
    assert (
        error.count("\n") == 1
        and "of the same content: " in error
        and "--leave-out-shared evaluates the other" in error
    )
    assert _evaluate(*words, "--leave-out-shared", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "left out (--leave-out-shared)" in said and "no external validation" in " ".join(said.split())
    row = Ledger(LocalStorage(place / "runs")).read(MUSK, 1)["row"]
    area = _metrics(tmp_path / "out").droplevel("model").loc[("bag", "auc", "")]
    assert area["units"] == row["test_bags"] and area["value"] == pytest.approx(row["bag_auc"])
    assert _evaluate(*words, "--allow-shared", "--out", tmp_path / "all") == 0
    assert "evaluated too (--allow-shared)" in capsys.readouterr().out
    assert "--allow-shared" in (tmp_path / "all" / "evaluation.html").read_text()
    assert _evaluate(place, MUSK[:8], even, "--ensemble", "--leave-out-shared") == 2  # each bag trained a fold
    assert "all 46 bags are of the training" in capsys.readouterr().err


def _cohort(folder: Path, names: list[str], patients: list[str], seed: int = 3) -> Path:
    for i, name in enumerate(names):
        files.npz(folder, files.make_slide(name, 12, positive=i % 2 == 1, seed=seed))
    rows = [f"{name},{i % 2},{patient}" for i, (name, patient) in enumerate(zip(names, patients, strict=True))]
    (folder / "slides.csv").write_text("slide,label,patient\n" + "\n".join(rows) + "\n")
    return folder


def test_shared_bags_are_found_by_name_and_by_patient(tmp_path: Path, capsys, place: Path) -> None:
    names = [f"S{i}" for i in range(12)]
    trained = _cohort(tmp_path / "trained", names, [f"P{i}" for i in range(12)])
    teacher = TeacherConfig(extractor="mlp", feature_width=8, steps=4, eval_every=2)
    train_kept_model(tmp_path / "runs", "0f" * 10, FeatureBags(path=str(trained), folds=3), teacher=teacher)
    ledger = Ledger(LocalStorage(tmp_path / "runs"))
    pool = FeatureBags(path=str(trained), folds=3)
    test = set(pool.replicate(pool.load_pool(), 0, 5).test.number.tolist())
    seen = [i for i in range(12) if i not in test]
    assert ledger.read("0f" * 10, 0)["row"]["test_bags"] == len(test)

    # The first is of a known name, the second of a known patient, the third of a test bag's name: that is not shared.
    names = [f"S{seen[0]}", "N1", f"S{min(test)}", "N3", "N4", "N5"]
    other = _cohort(tmp_path / "other", names, ["Q0", f"P{seen[1]}", "Q2", "Q3", "Q4", "Q5"], seed=8)
    assert _evaluate(tmp_path, "0f0f", other) == 2
    error = capsys.readouterr().err
    assert f"2 of 6 bags are of the training: 1 bag of the same name, other content: S{seen[0]}; " in error
    assert "1 bag of the same patient: N1" in error
    assert _evaluate(tmp_path, "0f0f", other, "--leave-out-shared") == 0
    assert "4 bags" in capsys.readouterr().out


def _numbered(folder: Path) -> Path:
    """Twelve slides 1, 2, … of which no patients are known."""
    for i in range(12):
        files.npz(folder, files.make_slide(str(i + 1), 12, positive=i % 2 == 1, seed=4))
    (folder / "slides.csv").write_text("slide,label\n" + "".join(f"{i + 1},{i % 2}\n" for i in range(12)))
    return folder


@pytest.mark.parametrize(("trained", "other", "said"), [
    ("slide", "patient", "named as a patient of the training"),
    ("patient", "slide", "of a patient who is named as a bag of the training"),
])  # fmt: skip
def test_a_patient_is_the_same_as_a_bag_and_as_the_patient_of_slides(
    tmp_path: Path, capsys, trained: str, other: str, said: str
) -> None:
    """The other cohort's names are S1, …; of slides that are only numbered as patients are nothing is said."""
    names = [f"S{i}" for i in range(12)]
    here = _cohort(tmp_path / "here", names, [str(i // 4 * 2 + i % 2 + 1) for i in range(12)])
    teacher = TeacherConfig(extractor="mlp", feature_width=8, steps=4, eval_every=2)
    data = FeatureBags(path=str(here), folds=3, bag=trained)
    train_kept_model(tmp_path / "runs", "0b" * 10, data, teacher=teacher)
    assert _evaluate(tmp_path, "0b0b", here, "--set", f"data.bag={other}") == 2
    error = capsys.readouterr().err
    assert said in error and "same content" not in error and "same name" not in error
    if trained == "slide":
        alone = _numbered(tmp_path / "alone")
        assert _evaluate(tmp_path, "0b0b", alone) == 0
        assert "no bag is one that training has seen" in capsys.readouterr().out


def test_slides_that_are_numbered_as_patients_are_elsewhere_are_not_shared(tmp_path: Path, capsys) -> None:
    teacher = TeacherConfig(extractor="mlp", feature_width=8, steps=4, eval_every=2)
    here = FeatureBags(path=str(_numbered(tmp_path / "here")), folds=3)
    train_kept_model(tmp_path / "runs", "0c" * 10, here, teacher=teacher)
    patients = [str(i + 1) for i in range(12)]
    other = _cohort(tmp_path / "other", [f"S{i}" for i in range(12)], patients, seed=8)
    assert _evaluate(tmp_path, "0c0c", other) == 0
    assert "no bag is one that training has seen" in capsys.readouterr().out


def test_what_is_not_known_of_training_is_said(tmp_path: Path, place: Path, capsys) -> None:
    """The data that it was trained on have gone: no bag can be recognised."""
    shutil.copy(place / "even.npz", tmp_path / "gone.npz")
    teacher = TeacherConfig(extractor="mlp", feature_width=8, steps=4, eval_every=2)
    train_kept_model(
        tmp_path / "runs", "0e" * 10, FeatureBags(path=str(tmp_path / "gone.npz"), folds=3), teacher=teacher
    )
    (tmp_path / "gone.npz").unlink()
    assert _evaluate(tmp_path, "0e0e", place / "even.npz") == 0
    assert "was trained on is not known here" in capsys.readouterr().out


# ---- mistakes
def _other_width(folder: Path) -> tuple[Path, list[str]]:
    for i in range(4):
        files.npz(folder, files.make_slide(f"W{i}", 9, width=5, positive=i % 2 == 1))
    (folder / "slides.csv").write_text("slide,label\n" + "".join(f"W{i},{i % 2}\n" for i in range(4)))
    return folder, []


def _without_labels(folder: Path) -> tuple[Path, list[str]]:
    found, _ = _other_width(folder)
    (found / "slides.csv").write_text("slide,age\n" + "".join(f"W{i},{50 + i}\n" for i in range(4)))
    return found, []


def _plain_folder(folder: Path) -> tuple[Path, list[str]]:
    found, _ = _other_width(folder)
    (found / "slides.csv").unlink()
    return found, []


def _nothing(folder: Path) -> tuple[Path, list[str]]:
    return folder / "nowhere.csv", []


WRONG = {
    "another width": (_other_width, "vectors of 5 dimensions; teacher", "takes vectors of 12 dimensions"),
    "no labels": (_without_labels, "no table with slides and labels in it", "name it as --data"),
    "a table without labels": (lambda folder: (_without_labels(folder)[0] / "slides.csv", []), "no column label", ""),
    "no table": (_plain_folder, "", "label"),
    "nothing there": (_nothing, "no such file or folder", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_data_that_are_none_of_the_models_are_answered(case: str, place: Path, tmp_path: Path, capsys) -> None:
    make, said, more = WRONG[case]
    data, words = make(tmp_path / "data")
    assert _evaluate(place, TEACHER[:8], data, "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and more in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("run", "words", "said"),
    [
        ("ffff", (), "no such trial"),
        ("nowhere/model", (), "no such folder"),
        (f"{MUSK[:8]},", (), "expected one, or two"),
        (f"{MUSK[:8]},{MUSK[:8]},{MUSK[:8]}", (), "3 models; expected one, or two"),
        (MUSK[:8], ("--replicate", "7"), "has the replicates 0, 1, 2"),
        (MUSK[:8], ("--replicate", "1", "--ensemble"), "--ensemble takes all replicates"),
        (MUSK[:8], ("--allow-shared", "--leave-out-shared"), "one of both"),
        (TEACHER[:8], ("--ensemble",), "an ensemble needs two"),
        (MUSK[:8], ("--set", "data.label_colum=x"), "did you mean 'label_column'"),
        (MUSK[:8], ("--set", "label_column"), "expected data.KEY=VALUE"),
        (MUSK[:8], ("--set", "data.path=x"), "that is --data"),
        (MUSK[:8], ("--set", "data.bag=ward"), "one of slide, patient"),
        (MUSK[:8], ("--set", "data.bag=slide", "--set", "bag=slide"), "given twice"),
        (MUSK[:8], ("--set", "data.label_column=x"), "does nothing"),
        (f"{MUSK[:8]},{TEACHER[:8]}", (), "vectors of 166 dimensions; teacher"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run: str, words: tuple[str, ...], said: str, place: Path, capsys
) -> None:
    assert _evaluate(place, run, place / "odd.npz", *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_another_encoder_is_refused_and_other_tiles_are_told(place: Path, tmp_path: Path, capsys) -> None:
    for i, encoder in enumerate(("uni_v1", "conch_v15")):
        for j in range(9):
            files.trident(
                tmp_path / encoder, files.make_slide(f"{encoder}{j}", 9, positive=j % 2 == 1, seed=i), encoder
            )
        (tmp_path / encoder / "slides.csv").write_text(
            "slide,label\n" + "".join(f"{encoder}{j},{j % 2}\n" for j in range(9))
        )
    teacher = TeacherConfig(extractor="mlp", feature_width=8, steps=4, eval_every=2)
    data = FeatureBags(path=str(tmp_path / "uni_v1"), folds=3)
    train_kept_model(tmp_path / "runs", "0c" * 10, data, teacher=teacher)
    assert _evaluate(tmp_path, "0c0c", tmp_path / "conch_v15") == 2
    error = capsys.readouterr().err
    assert "'conch_v15'" in error and "'uni_v1'" in error
    for j in range(9):
        files.trident(tmp_path / "ten", files.make_slide(f"X{j}", 9, positive=j % 2 == 1, seed=4), "UNI-v1", 10)
    (tmp_path / "ten" / "slides.csv").write_text("slide,label\n" + "".join(f"X{j},{j % 2}\n" for j in range(9)))
    assert _evaluate(tmp_path, "0c0c", tmp_path / "ten") == 0
    assert "trained on tiles of 256 px at 20×" in capsys.readouterr().out


def test_labels_by_other_names_are_read_with_set(place: Path, tmp_path: Path, capsys) -> None:
    shutil.copytree(place / "there", tmp_path / "named")
    table = pd.read_csv(place / "there" / "slides.csv")
    table["msi"] = table.pop("label").map({0: "MSS", 1: "MSI-H"})
    table.to_csv(tmp_path / "named" / "slides.csv", index=False)
    words = ("--set", "data.label_column=msi", "--set", "data.positive=MSI-H")
    assert _evaluate(place, TEACHER[:8], tmp_path / "named", *words, "--out", tmp_path / "a") == 0
    assert _evaluate(place, TEACHER[:8], place / "there", "--out", tmp_path / "b") == 0
    a, b = (_metrics(tmp_path / name) for name in "ab")
    pd.testing.assert_frame_equal(a, b)


def test_a_cohort_with_a_column_of_its_set_and_of_one_class(place: Path, tmp_path: Path, capsys) -> None:
    """Nothing is trained: the numbers are those without the column, and what one class cannot give has a reason."""
    shutil.copytree(place / "there", tmp_path / "there")
    table = pd.read_csv(place / "there" / "slides.csv")
    table.assign(set="external").to_csv(tmp_path / "there" / "slides.csv", index=False)
    assert _evaluate(place, TEACHER[:8], tmp_path / "there", "--out", tmp_path / "a") == 0
    assert _evaluate(place, TEACHER[:8], place / "there", "--out", tmp_path / "b") == 0
    a, b = (_metrics(tmp_path / name) for name in "ab")
    pd.testing.assert_frame_equal(a, b)
    capsys.readouterr()
    table[table["label"] == 0].to_csv(tmp_path / "there" / "slides.csv", index=False)
    assert _evaluate(place, TEACHER[:8], tmp_path / "there", "--out", tmp_path / "a") == 0
    assert "AUC of bags, " in capsys.readouterr().out
    one = _metrics(tmp_path / "a").droplevel("model")
    assert one.loc[("bag", "auc", ""), "reason"] == "all 12 bags are negative"
    assert 0 <= one.loc[("bag", "specificity", "model threshold"), "value"] <= 1
    assert "all 12 bags are negative" in (tmp_path / "a" / "evaluation.html").read_text()


# ---- files
def test_files_of_others_are_not_replaced_and_ours_are(place: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    words = (place, MUSK[:8], place / "odd.npz", "--out", out)
    assert _evaluate(*words) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"metrics.csv", "evaluation.html", "scores.parquet"}
    assert _evaluate(*words) == 0
    assert (out / "metrics.csv").read_bytes() == before["metrics.csv"]
    about = json.loads(pq.read_schema(out / "scores.parquet").metadata[b"d2l_study.evaluate"])
    assert [one["config_id"] for one in about.values()] == [MUSK]
    capsys.readouterr()
    for name in before:
        (out / name).write_text("something else\n")
        assert _evaluate(*words) == 2
        assert f"{name} is there, and was not written by `evaluate`" in capsys.readouterr().err
        (out / name).write_bytes(before[name])
    there = shutil.copytree(place / "there", tmp_path / "there")
    assert _evaluate(place, TEACHER[:8], there, "--out", f"{there.parent}/./there/") == 2
    assert "is the folder of --data" in capsys.readouterr().err
    assert {path.name for path in there.iterdir()} == {path.name for path in (place / "there").iterdir()}
    (tmp_path / "file").write_text("")
    assert _evaluate(place, MUSK[:8], place / "odd.npz", "--out", tmp_path / "file") == 2
    assert "it is a file; expected a folder" in capsys.readouterr().err
