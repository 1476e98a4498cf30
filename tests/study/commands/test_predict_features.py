"""`predict` with models of vectors: the numbers are the study's and `label`'s, one row each; mistakes are answered."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import feature_files as files
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from make_trial_request import train_kept_model, train_vector_pair

from d2l_study.cli import main
from d2l_study.data import FeatureBags, given_bags
from d2l_study.data.features.embedded import embedded_file
from d2l_study.inference import feature_predictions
from d2l_study.inference.prediction_file import COLUMNS
from d2l_study.learning import TeacherConfig
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.trial.model_reference import find_models

TEACHER, STUDENT, PATIENTS, MUSK = ("ce" * 10, "5d" * 10, "9a" * 10, "31" * 10)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cohort in torchmil's folders, a table of it with patients, and `runs` with models of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("cohort")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(folder / "cache"))
        lines = ["slide_id,case_id,label"]
        for number, (slide, label) in enumerate(files.cohort(15, (12, 9, 30, 20))):
            files.torchmil(folder / "data", slide, label)
            lines.append(f"{slide.name},p{number // 4}{number % 2},{label}")
        (folder / "data" / "slides.csv").write_text("\n".join(lines))
        data = FeatureBags(path=str(folder / "data"), folds=3)
        train_vector_pair(folder / "runs", TEACHER, STUDENT, data)
        musk = FeatureBags(path="musk1", folds=5)
        train_kept_model(folder / "runs", MUSK, musk, teacher=TeacherConfig(extractor="none", steps=40, eval_every=20))
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(place / "cache"))


def _predict(place: Path, config: str, out: Path, *words: str | Path) -> int:
    return main(["predict", "--root", str(place / "runs"), "--run", config[:8], "--out", str(out), *map(str, words)])


def _committed(place: Path, config: str) -> pd.DataFrame:
    found = pd.read_parquet(
        io.BytesIO(Ledger(LocalStorage(place / "runs")).read_file(config, 0, "predictions.parquet"))
    )
    return found[found["split"] == "test"]


@pytest.mark.parametrize(("config", "data"), [(TEACHER, "data/features"), (STUDENT, "data/features"), (MUSK, "musk1")])
def test_the_scores_of_the_test_bags_are_those_that_the_study_committed(
    place: Path, tmp_path: Path, config: str, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = data if data == "musk1" else place / data
    assert _predict(place, config, tmp_path / "new" / "scores.parquet", words) == 0
    said = capsys.readouterr().out
    frame = pd.read_parquet(tmp_path / "new" / "scores.parquet")
    assert tuple(frame.columns) == COLUMNS and [path.name for path in (tmp_path / "new").iterdir()] == [
        "scores.parquet"
    ]
    committed = _committed(place, config)
    path = data if data == "musk1" else str(place / "data")
    names = FeatureBags(path=path, folds=3).load_pool().names
    bags = frame[frame["level"] == "bag"].set_index("bag")
    for number, logit in committed.loc[committed["level"] == "bag", ["bag_index", "logit"]].itertuples(index=False):
        assert bags.loc[names[number], "logit"] == pytest.approx(logit, abs=1e-5)
        mine = committed[(committed["level"] == "instance") & (committed["bag_index"] == number)]
        scored = frame[(frame["level"] == "instance") & (frame["bag"] == names[number])]
        np.testing.assert_allclose(scored["logit"], mine["logit"], rtol=0, atol=1e-5)
        assert scored["index"].tolist() == list(range(len(mine)))
    assert f"scored:   {len(bags)} bags, {len(frame) - len(bags):,} vectors\n" in said and "already" not in said
    loaded = find_models(config, place / "runs")[0].loaded
    assert loaded.bag_threshold is not None
    assert (bags["predicted"] == (bags["logit"] > np.float32(loaded.bag_threshold))).all()
    np.testing.assert_allclose(frame["score"], 1 / (1 + np.exp(-frame["logit"].astype(float))), rtol=1e-12)
    assert f"positive: {int(bags['predicted'].sum())} bag" in said


def test_label_gives_the_same(place: Path, tmp_path: Path) -> None:
    assert _predict(place, STUDENT, tmp_path / "p.parquet", place / "data") == 0
    words = ["label", "--root", str(place / "runs"), "--run", STUDENT[:8], "--out", str(tmp_path / "l")]
    assert main([*words, str(place / "data")]) == 0
    mine = pd.read_parquet(tmp_path / "p.parquet").query("level == 'instance'")
    other = pd.read_parquet(tmp_path / "l/scores.parquet")
    for name in ("logit", "x", "y", "predicted", "index"):
        np.testing.assert_array_equal(mine[name], other[name])
    assert mine["bag"].tolist() == other["slide"].tolist()
    assert {Path(source).name for source in mine["source"]} == {f"{name}.npy" for name in other["slide"]}
    about = json.loads(pq.read_schema(tmp_path / "p.parquet").metadata[b"d2l_study.predict"])
    assert about["config_id"] == STUDENT and about["stage"] == "student" and about["bag_threshold"] is not None


def _seen(said: str) -> str:
    (line,) = [line for line in said.splitlines() if line.startswith("note:") and "flatter" in line] or [""]
    return line


def test_bags_that_the_model_saw_are_named(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the files and names of a trial's data, by names alone of an exported model; with nothing decoded for it."""
    pool = FeatureBags(path=str(place / "data"), folds=3).load_pool()
    committed = _committed(place, TEACHER)
    tested = [pool.names[number] for number in sorted(set(committed["bag_index"]))]
    trained = next(name for name in pool.names if name not in tested)
    features = place / "data" / "features"
    assert _predict(place, TEACHER, tmp_path / "a.parquet", features) == 0
    seen = len(pool.names) - len(tested)
    line = _seen(capsys.readouterr().out)
    assert line.startswith(f"note:     {seen} bags are ones that this model was trained on or selected by (by file or")
    assert _predict(place, TEACHER, tmp_path / "b.parquet", *(features / f"{name}.npy" for name in tested)) == 0
    assert not _seen(capsys.readouterr().out)

    shutil.copy(features / f"{trained}.npy", tmp_path / f"{trained}.npy")  # another file of the same name
    shutil.copy(features / f"{trained}.npy", tmp_path / "renamed.npy")
    line = "note:     1 bag is one that this model was trained on or selected by (by {}), so that its scores flatter: "
    copies = [tmp_path / f"{trained}.npy", tmp_path / "renamed.npy"]
    assert _predict(place, TEACHER, tmp_path / "c.parquet", *copies) == 0
    assert _seen(capsys.readouterr().out) == line.format("file or name") + trained
    exported = tmp_path / "model"
    assert main(["export", "--root", str(place / "runs"), "--run", TEACHER[:8], "--to", str(exported)]) == 0
    assert main(["predict", "--run", str(exported), *map(str, copies), "--out", str(tmp_path / "d.parquet")]) == 0
    assert _seen(capsys.readouterr().out) == line.format("name") + trained


def test_a_data_set_is_not_decoded_to_recognise_its_bags(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given_bags._loaded.cache_clear()
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    assert _predict(place, TEACHER, tmp_path / "a.parquet", place / "data" / "features") == 0
    assert not _seen(capsys.readouterr().out) and not list((tmp_path / "cache").glob("features-*"))


def test_the_bags_of_a_file_of_a_whole_set_are_recognised_by_that_file(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _predict(place, MUSK, tmp_path / "a.parquet", "musk1") == 0
    tested = len(set(_committed(place, MUSK)["bag_index"]))
    assert f" {92 - tested} bags are ones that this model was trained on" in _seen(capsys.readouterr().out)
    other = shutil.copy(embedded_file("musk1"), tmp_path)  # bags of another file have the same numbers as names
    assert _predict(place, MUSK, tmp_path / "b.parquet", other) == 0
    assert not _seen(capsys.readouterr().out)


def test_a_bag_of_several_slides_counts_its_vectors_on(place: Path, tmp_path: Path) -> None:
    """A table that joins slides to patients, with a model whose bags are patients."""
    data = FeatureBags(path=str(place / "data" / "slides.csv"), bag="patient", folds=3)
    train_kept_model(place / "runs", PATIENTS, data, teacher=TeacherConfig(extractor="none", steps=20, eval_every=10))
    assert _predict(place, PATIENTS, tmp_path / "p.csv", place / "data" / "slides.csv") == 0
    frame = pd.read_csv(tmp_path / "p.csv")
    pool = data.load_pool()
    bags = frame[frame["level"] == "bag"]
    assert bags["bag"].tolist() == list(pool.names) and bags["source"].isna().sum() == 7  # one has a single slide
    for number, name in enumerate(pool.names):
        mine = frame[(frame["bag"] == name) & (frame["level"] == "instance")]
        assert mine["index"].tolist() == list(range(int(pool.bags.sizes[number])))
        np.testing.assert_array_equal(mine[["x", "y"]], pool.xy[slice(*pool.bags.offsets[number : number + 2])])
    committed = _committed(place, PATIENTS).query("level == 'bag'")
    found = bags.set_index("bag").loc[[pool.names[b] for b in committed["bag_index"]], "logit"]
    np.testing.assert_allclose(found, committed["logit"], rtol=0, atol=1e-5)


def test_an_empty_slide_has_a_row_without_numbers(place: Path, tmp_path: Path) -> None:
    one = files.npz(tmp_path, files.make_slide("full", 5))
    np.save(tmp_path / "bare.npy", np.empty((0, 12), np.float32))
    assert _predict(place, TEACHER, tmp_path / "s.csv", one, tmp_path / "bare.npy") == 0
    frame = pd.read_csv(tmp_path / "s.csv")
    assert frame["bag"].tolist() == ["full"] * 6 + ["bare"]
    assert frame.loc[6, ["index", "logit", "score", "predicted"]].isna().all() and frame.loc[6, "level"] == "bag"
    assert frame.loc[:5, "logit"].notna().all()


def test_ours_are_replaced_and_others_are_not(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = files.npz(tmp_path, files.make_slide("full", 5))
    for ending in ("csv", "parquet"):
        out = tmp_path / f"s.{ending}"
        assert _predict(place, TEACHER, out, one) == 0
        before = out.read_bytes()
        assert _predict(place, STUDENT, out, one) == 0 and out.read_bytes() != before
        out.write_text("level,bag\n") if ending == "csv" else pd.DataFrame({"a": [1]}).to_parquet(out)
        before = out.read_bytes()
        capsys.readouterr()
        assert _predict(place, TEACHER, out, one) == 2 and out.read_bytes() == before
        said = capsys.readouterr().err
        assert f"error: --out {out}: is there, and was not written by `predict`; name another file, or move it" in said


def test_messages_name_the_file_that_was_given(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not its folder, which the user may never have written."""
    one = files.npz(tmp_path, files.make_slide("full", 5))
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder.csv").mkdir()
    for out, reason in (
        (tmp_path / "file" / "s.csv", f"cannot write there: {tmp_path / 'file'} is a file; expected a folder"),
        (tmp_path / "file" / "a" / "s.csv", "cannot write there"),
        (tmp_path / "folder.csv", "is there, and is no file; name another file"),
    ):
        assert _predict(place, TEACHER, out, one) == 2
        assert f"error: --out {out}: {reason}" in capsys.readouterr().err


def test_an_interrupted_command_leaves_what_was_there(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [files.npz(tmp_path, files.make_slide(name, 5)) for name in ("a", "b")]
    out = tmp_path / "s.parquet"
    assert _predict(place, TEACHER, out, *words) == 0
    before, right, calls = out.read_bytes(), feature_predictions.score_input, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return right(*given)

    monkeypatch.setattr(feature_predictions, "score_input", interrupted)
    monkeypatch.setattr("d2l_study.inference.prediction_file.BLOCK", 1)
    assert _predict(place, STUDENT, out, *words) == 130
    assert out.read_bytes() == before and not list(tmp_path.glob("*.part"))
    assert "Stopped; the file of scores is whole, or as it was before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: [*w[:2], "--out", "s.txt", w[-1]], "expected a file whose name ends in .parquet or .csv"),
        (lambda w: [*w, "--mpp", "0.5"], "--mpp: this model scores feature vectors"),
        (lambda w: [*w, "--stride", "9"], "--stride: this model scores feature vectors"),
        (lambda w: [*w, "--no-tissue"], "--no-tissue: this model scores feature vectors"),
        (lambda w: [*w, "nothing.npy"], "nothing.npy: no such file or folder"),
        (lambda w: [*w, w[-1]], "given twice"),
        (lambda w: [*w, "wide.npy"], "vectors of 13 dimensions; the model takes 12"),
        (lambda w: [*w, "nan.npy"], "NaN"),
        (lambda w: [*w, "--replicate", "7"], "--replicate 7: trial cecececece has the replicates 0"),
        (lambda w: ["--run", "ffff", *w[2:]], "--run 'ffff': no such trial"),
        (lambda w: ["--run", "./none", *w[2:]], "no such folder"),
    ],
)
def test_mistakes_are_answered_before_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change, said
) -> None:
    monkeypatch.chdir(tmp_path)
    files.npz(tmp_path, files.make_slide("full", 5))
    np.save("wide.npy", np.ones((3, 13), np.float32))
    np.save("nan.npy", np.full((3, 12), np.nan, np.float32))
    words = change(["--run", TEACHER[:8], "--out", "new/s.parquet", "full.npz"])
    assert main(["predict", "--root", str(place / "runs"), *words]) == 2
    told = capsys.readouterr().err
    assert said in told and told.startswith("error: ") and not (tmp_path / "new").exists()


def test_smooth_averages_instances_over_neighbours_in_their_file_and_leaves_bags(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames, printed = {}, {}
    for name, words in (("plain", []), ("smooth", ["--smooth", "3"])):
        assert _predict(place, TEACHER, tmp_path / f"{name}.parquet", place / "data/features", *words) == 0
        frames[name] = pd.read_parquet(tmp_path / f"{name}.parquet")
        printed[name] = capsys.readouterr().out
    plain, smooth = frames["plain"], frames["smooth"]
    bags = plain["level"] == "bag"
    np.testing.assert_array_equal(plain.loc[bags, "logit"], smooth.loc[bags, "logit"])
    for _, own in plain[~bags].groupby("source"):
        xy, logit = own[["x", "y"]].to_numpy(), own["logit"].to_numpy()
        apart = np.linalg.norm(xy[:, None] - xy[None], axis=2)
        for i, found in enumerate(smooth.loc[own.index, "logit"]):
            near = np.sort(apart[i])[: min(4, len(own))]
            if len(own) > 4 and np.sort(apart[i])[4] == near[-1]:
                continue  # two are equally far: either may be taken
            assert found == pytest.approx(logit[apart[i] <= near[-1]].mean(), abs=1e-5)
    meta = json.loads(pq.read_schema(tmp_path / "smooth.parquet").metadata[b"d2l_study.predict"])
    assert meta["smooth"] == 3
    said = "logits are averaged over 3 neighbours, while the threshold was set on logits that are not"
    assert meta["smooth_meaning"] == said and f"predicted positive\n          {said}\n" in printed["smooth"]
    assert "neighbours" not in printed["plain"]


def test_smooth_needs_places(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _predict(place, MUSK, tmp_path / "scores.csv", "musk1", "--smooth", "2") == 2
    assert "--smooth: " in (error := capsys.readouterr().err) and "no neighbours" in error
    assert not (tmp_path / "scores.csv").exists()
