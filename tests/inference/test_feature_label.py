"""Scores of feature files are the model's, bag by bag, however the files are cut, and outlive an interruption."""

import csv
import fcntl
import json
import math
import os
import tracemalloc

import feature_files as files
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from d2l_study.data.features import feature_file
from d2l_study.errors import UserError
from d2l_study.inference import feature_label, feature_scores, score_checkpoint
from d2l_study.inference.feature_inputs import open_feature_inputs
from d2l_study.inference.feature_label import label_features
from d2l_study.inference.feature_scores import KnownSlide
from d2l_study.inference.model_file import ModelCard, StoredModel, from_bytes, to_bytes
from d2l_study.learning import prediction
from d2l_study.learning.metrics import auc, probability
from d2l_study.models import POOLINGS, MilModel
from d2l_study.slides import score_files

WIDTH = 12


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(feature_file, "PIECE", 7 * WIDTH * 4)
    monkeypatch.setattr(prediction, "CHUNK", 5)
    monkeypatch.setattr(score_files, "BLOCK", 8)
    monkeypatch.setattr(score_checkpoint, "SAVE_SECONDS", -1.0)


def model(pooling="attention", seed=3, threshold=0.1, encoder="uni_v1", **data):
    network = MilModel((WIDTH,), pooling, 8, 4, "mlp", 2)
    card = ModelCard(
        "teacher", {"data": data}, np.linspace(-1, 1, WIDTH), np.linspace(1, 2, WIDTH), "s", "ab" * 10, 1, threshold,
        encoder, "256 px at 20×",
    )  # fmt: skip
    return from_bytes(to_bytes(network, network.init(np.random.default_rng(seed)), card))


def cohort(folder, sizes=(20, 9, 0, 1)):
    """TRIDENT files of slides s0, s1 …"""
    made = [files.make_slide(f"s{i}", count, positive=True, seed=i) for i, count in enumerate(sizes)]
    for slide in made:
        files.trident(folder, slide)
    return made


def normalised(vectors):
    return torch.from_numpy((vectors.astype(np.float32) - np.linspace(-1, 1, WIDTH)) / np.linspace(1, 2, WIDTH)).float()


def expected(stored, vectors):
    """The logit of each vector alone, and that of all as a bag."""
    x = normalised(vectors)
    each = stored.model.logits(stored.params, x, torch.arange(len(x)), len(x))
    return each.numpy(), stored.model.logits(stored.params, x, torch.zeros(len(x), dtype=torch.int64), 1).item()


def label(names, out, stored=None, **more):
    stored = stored or model()
    return label_features(stored, open_feature_inputs(names, stored), out, **more)


def bags(out):
    with (out / "bags.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("pooling", [*POOLINGS, "noisy_or"])
def test_vectors_and_bags_have_the_logits_of_the_model(tmp_path, pooling):
    slides, stored = cohort(tmp_path / "in"), model(pooling)
    summary = label([tmp_path / "in"], tmp_path / "out", stored)
    frame = pd.read_parquet(summary.path)
    assert frame["slide"].tolist() == ["s0"] * 20 + ["s1"] * 9 + ["s3"]
    assert frame["index"].tolist() == [*range(20), *range(9), 0]
    np.testing.assert_array_equal(frame[["x", "y"]], np.concatenate([slide.coords for slide in slides]))
    rows = {row["bag"]: row for row in bags(tmp_path / "out")}
    assert list(rows) == ["s0", "s1", "s2", "s3"] and rows["s2"]["instances"] == "0" and rows["s2"]["logit"] == ""
    for slide in slides:
        if len(slide.vectors):
            each, whole = expected(stored, slide.vectors)
            mine = frame[frame["slide"] == slide.name]
            np.testing.assert_allclose(mine["logit"], each, rtol=1e-4, atol=1e-5)
            assert float(rows[slide.name]["logit"]) == pytest.approx(whole, rel=1e-4, abs=1e-5)
    np.testing.assert_array_equal(frame["score"], probability(frame["logit"].to_numpy()))
    assert frame["predicted"].tolist() == (frame["logit"] > 0.1).astype(int).tolist()
    assert summary.count == 30 and summary.positive == frame["predicted"].sum() and frame["truth"].isna().all()


def test_vectors_are_brought_to_unit_length_where_training_did(tmp_path):
    (slide,) = cohort(tmp_path / "in", (6,))
    label([tmp_path / "in"], tmp_path / "out", stored := model(normalise="length"))
    x = torch.from_numpy(slide.vectors / np.linalg.norm(slide.vectors, axis=1, keepdims=True)).float()
    each = stored.model.logits(stored.params, x, torch.arange(6), 6)
    np.testing.assert_allclose(pd.read_parquet(tmp_path / "out/scores.parquet")["logit"], each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("writer", ["clam_pt", "stamp", "npy", "npz", "nnmil"])
def test_each_layout_gives_the_same_scores(tmp_path, writer):
    slide = files.make_slide("s1", 20, positive=True)
    slide = files.Slide("s1", slide.vectors.astype(np.float16).astype(np.float32), slide.coords, slide.truth)
    label([getattr(files, writer)(tmp_path / "in", slide)], tmp_path / "out", model(encoder=""))
    frame = pd.read_parquet(tmp_path / "out/scores.parquet")
    np.testing.assert_allclose(frame["logit"], expected(model(), slide.vectors)[0], rtol=1e-4, atol=1e-5)
    places = {"stamp": slide.coords * 0.5, "npz": slide.coords, "nnmil": slide.coords}.get(writer)
    if places is None:
        assert frame[["x", "y"]].isna().all(axis=None)
    else:
        np.testing.assert_array_equal(frame[["x", "y"]], places)
    assert frame["truth"].tolist() == slide.truth.tolist() if writer == "npz" else frame["truth"].isna().all()


def test_a_set_whose_bags_are_mixed_gives_each_bag_its_own(tmp_path):
    rng = np.random.default_rng(1)
    index, vectors = rng.permutation(np.repeat([0, 1, 3], [4, 9, 5])), rng.normal(size=(18, WIDTH))
    np.savez(tmp_path / "set.npz", features=vectors, bag_index=index, bag_label=np.zeros(5),
             instance_label=np.arange(18) % 2)  # fmt: skip
    for pooling in ("attention", "embedding_max"):
        label([tmp_path / "set.npz"], tmp_path / "out", stored := model(pooling))
        frame, rows = pd.read_parquet(tmp_path / "out/scores.parquet"), bags(tmp_path / "out")
        assert [int(row["instances"]) for row in rows] == [4, 9, 0, 5, 0]
        for number in (0, 1, 3):
            each, whole = expected(stored, vectors[index == number])
            mine = frame[frame["slide"] == str(number)]
            np.testing.assert_allclose(mine["logit"], each, rtol=1e-4, atol=1e-5)
            assert float(rows[number]["logit"]) == pytest.approx(whole, rel=1e-4, abs=1e-5)
            assert mine["truth"].tolist() == (np.arange(18) % 2)[index == number].tolist()


def test_the_slides_of_a_patient_are_one_bag(tmp_path):
    slides = cohort(tmp_path / "features", (5, 6, 4))
    (tmp_path / "t.csv").write_text("slide,patient\ns0,p\ns1,q\ns2,p\n")
    label([tmp_path / "t.csv"], tmp_path / "out", stored := model(bag="patient"))
    rows = bags(tmp_path / "out")
    assert [(row["bag"], row["slides"], row["instances"]) for row in rows] == [("p", "2", "9"), ("q", "1", "6")]
    joined = np.concatenate([slides[0].vectors, slides[2].vectors])
    assert float(rows[0]["logit"]) == pytest.approx(expected(stored, joined)[1], rel=1e-4)
    frame = pd.read_parquet(tmp_path / "out/scores.parquet")
    assert frame["slide"].tolist() == ["s0"] * 5 + ["s2"] * 4 + ["s1"] * 6
    np.testing.assert_allclose(frame["logit"][:9], expected(stored, joined)[0], rtol=1e-4, atol=1e-5)


def test_metadata_say_what_the_numbers_are(tmp_path):
    cohort(tmp_path / "in")
    summary = label([tmp_path / "in"], tmp_path / "out")
    about = json.loads(pq.read_schema(summary.path).metadata[b"d2l_study.label"])
    assert about["coordinates"] == {"unit": "level-0 pixels", "of_tile": "top-left", "tiles": "256 px at 20×"}
    assert (about["config_id"], about["stage"], about["replicate"]) == ("ab" * 10, "teacher", 1)
    assert (about["instance_threshold"], about["dimensions"], about["encoder"]) == (0.1, WIDTH, "uni_v1")
    assert about["slides"][0] == {
        "slide": "s0", "file": str(tmp_path / "in/s0.h5"), "instances": 20, "tile": 512.0}  # fmt: skip
    assert [row["instances"] for row in about["slides"]] == [20, 9, 0, 1]


def test_without_a_threshold_nothing_is_predicted(tmp_path):
    cohort(tmp_path / "in")
    summary = label([tmp_path / "in"], tmp_path / "out", model(threshold=None))
    assert summary.positive is None and pd.read_parquet(summary.path)["predicted"].isna().all()


def test_slides_that_are_all_empty_are_listed(tmp_path):
    cohort(tmp_path / "in", (0, 0))
    summary = label([tmp_path / "in"], tmp_path / "out")
    assert summary.count == 0 and len(pd.read_parquet(summary.path)) == 0
    assert [(row["bag"], row["logit"]) for row in bags(tmp_path / "out")] == [("s0", ""), ("s1", "")]


# ---- what is known
def test_scores_are_compared_with_what_is_known_by_part(tmp_path):
    slides = cohort(tmp_path / "in", (20, 9, 6, 8))
    told = {
        "s0": KnownSlide("training", 1, slides[0].truth), "s1": KnownSlide("training", 0, slides[1].truth),
        "s2": KnownSlide("test", 1),
    }  # fmt: skip
    summary = label([tmp_path / "in"], tmp_path / "out", known=lambda path, bag: told.get(path.stem))
    frame = pd.read_parquet(summary.path)
    training, test, others = summary.parts
    assert (training.part, training.bags, training.known) == ("training", 2, 29)
    mine = frame[:29]
    assert mine["truth"].tolist() == [*slides[0].truth, *slides[1].truth] and frame["truth"][29:].isna().all()
    truth, logit = mine["truth"].to_numpy(), mine["logit"].to_numpy()
    assert training.instance_auc == auc(truth, logit)
    within = [auc(truth[rows], logit[rows]) for rows in (slice(20), slice(20, 29))]
    assert training.instance_auc_within == np.mean(within) and training.bag_auc in (0, 1)
    assert (test.part, test.bags, test.known) == ("test", 1, 0) and math.isnan(test.instance_auc)
    assert (others.part, others.bags) == ("", 1)
    assert [(row["part"], row["label"]) for row in bags(tmp_path / "out")] == [
        ("training", "1"), ("training", "0"), ("test", "1"), ("", "")]  # fmt: skip


def test_of_more_known_vectors_than_are_ranked_the_area_within_bags_stays(tmp_path, monkeypatch):
    slides = cohort(tmp_path / "in", (20, 9))
    monkeypatch.setattr(feature_scores, "MOST_RANKED", 25)
    truth = {slide.name: KnownSlide("test", 1, slide.truth) for slide in slides}
    (part,) = label([tmp_path / "in"], tmp_path / "out", known=lambda path, bag: truth[path.stem]).parts
    assert math.isnan(part.instance_auc) and part.known == 29 and 0 <= part.instance_auc_within <= 1


# ---- interruptions
@pytest.fixture
def read(monkeypatch):
    """The names of the slides that were scored."""
    names = []

    def counting(stored, entry, compute=None):
        names.append(entry.slides[0])
        return right(stored, entry, compute)

    right = feature_label.score_input
    monkeypatch.setattr(feature_label, "score_input", counting)
    return names


def stops_at(most):
    def heard(name, done, count):
        if done >= most:
            raise KeyboardInterrupt

    return heard


@pytest.mark.parametrize(("most", "left"), [(0, "0123"), (20, "123"), (29, "23"), (30, "")])
def test_slides_that_were_scored_are_not_scored_again(tmp_path, read, most, left):
    cohort(tmp_path / "in")
    label([tmp_path / "in"], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        label([tmp_path / "in"], tmp_path / "out", progress=stops_at(most))
    assert listing(tmp_path / "out") == ["scores.part", "scores.part.json"]
    read.clear()
    heard = []
    label([tmp_path / "in"], tmp_path / "out", progress=lambda *what: heard.append(what))
    assert read == [f"s{i}" for i in left]
    assert heard[0] == ("scores.parquet", most, 30) and heard[-1] == ("scores.parquet", 30, 30)
    assert listing(tmp_path / "out") == listing(tmp_path / "whole") == ["bags.csv", "scores.parquet"]
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("out", "whole")))
    assert bags(tmp_path / "out") == bags(tmp_path / "whole")


@pytest.mark.parametrize("change", ["file", "model", "count", "scores"])
def test_what_was_scored_of_something_else_is_not_taken(tmp_path, read, change):
    slides, stored = cohort(tmp_path / "in"), model()
    with pytest.raises(KeyboardInterrupt):
        label([tmp_path / "in"], tmp_path / "out", stored, progress=stops_at(29))
    if change == "file":
        files.trident(tmp_path / "in", files.make_slide("s0", 20, seed=9))
        os.utime(tmp_path / "in/s0.h5", ns=(0, 123))
    elif change == "model":
        stored = model(seed=4)
    elif change == "count":
        files.trident(tmp_path / "in", files.make_slide("s3", 2))
    else:
        data = bytearray((tmp_path / "out/scores.part").read_bytes())
        data[150] ^= 1
        (tmp_path / "out/scores.part").write_bytes(data)
    read.clear()
    label([tmp_path / "in"], tmp_path / "out", stored)
    assert read == ["s0", "s1", "s2", "s3"]
    first = files.make_slide("s0", 20, seed=9).vectors if change == "file" else slides[0].vectors
    frame = pd.read_parquet(tmp_path / "out/scores.parquet")
    np.testing.assert_allclose(frame["logit"][:20], expected(stored, first)[0], rtol=1e-4, atol=1e-5)


def test_a_file_that_shrinks_meanwhile_is_named_and_nothing_is_written(tmp_path):
    cohort(tmp_path / "in")
    stored = model()
    inputs = open_feature_inputs([tmp_path / "in"], stored)
    (tmp_path / "in/s1.h5").unlink()
    with pytest.raises(UserError, match=r"s1\.h5: no such file"):
        label_features(stored, inputs, tmp_path / "out")
    assert listing(tmp_path / "out") == []


def test_what_somebody_else_wrote_is_not_replaced(tmp_path):
    cohort(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/bags.csv").write_text("bag,label\na,1\n")
    with pytest.raises(UserError, match=r"bags\.csv is there, and was not written by `label`"):
        label([tmp_path / "in"], tmp_path / "out")
    assert listing(tmp_path / "out") == ["bags.csv"]
    (tmp_path / "out/bags.csv").unlink()
    for seed in (3, 4):
        label([tmp_path / "in"], tmp_path / "out", model(seed=seed))


def test_two_commands_do_not_write_one_file(tmp_path):
    cohort(tmp_path / "in")
    with pytest.raises(KeyboardInterrupt):
        label([tmp_path / "in"], tmp_path / "out", progress=stops_at(20))
    with (tmp_path / "out/scores.part").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another command is writing scores"):
            label([tmp_path / "in"], tmp_path / "out")


def test_scores_that_are_not_numbers_are_not_written(tmp_path):
    cohort(tmp_path / "in")
    stored = model()
    stored.params["fc.weight"] = torch.full_like(stored.params["fc.weight"], 3e38)
    with pytest.raises(UserError, match=r"s0\.h5: the model gives scores that are not finite"):
        label([tmp_path / "in"], tmp_path / "out", stored)
    assert listing(tmp_path / "out") == []


def test_the_memory_for_a_large_bag_is_that_of_a_piece(tmp_path, monkeypatch):
    """Of a bag of 4,000 vectors no more than two pieces and the terms of all are held."""
    monkeypatch.undo()
    monkeypatch.setattr(feature_file, "PIECE", 64 * 4096 * 4)
    monkeypatch.setattr(prediction, "CHUNK", 64)
    network = MilModel((4096,), "attention", 8, 4, "mlp")
    card = ModelCard("teacher", {}, (0.0,) * 4096, (1.0,) * 4096, "s", "ab" * 10, 0)
    stored = StoredModel(network, network.init(np.random.default_rng(1)), card)
    path = tmp_path / "big.npy"
    np.save(path, np.random.default_rng(1).normal(size=(4000, 4096)).astype(np.float32))
    (entry,) = open_feature_inputs([path], stored)
    tracemalloc.start()
    feature_label.score_input(stored, entry)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.1 * path.stat().st_size
