"""Runs on tiles of a grid have FROC and keep the places of their test instances, from which it is found again."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest

from d2l_study.data.breast import BreastBags
from d2l_study.data.synthetic_tissue import write_breast
from d2l_study.learning import TeacherConfig, localisation
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import PREDICTIONS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

TEACHER, ATTENTION = "ab" * 10, "cd" * 10


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """The data set, and the ledger of a teacher and its attention, tested on three folds of six tissue cores."""
    root = tmp_path_factory.mktemp("breast")
    write_breast(root, per_core=2, cores=6, width=224, height=192, nuclei=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = BreastBags(root=str(root), folds=3).resolved()
        pool = data.load_pool()
        config = TeacherConfig(steps=4, eval_every=2, feature_width=16)
        for stage, identity, teachers in (("teacher", TEACHER, ()), ("attention", ATTENTION, (TEACHER,))):
            request = TrialRequest(
                root=str(root / "runs"), study="s", config_id=identity, label="none", stage=stage,
                sections={"data": data.to_dict(), "teacher": config.to_dict()}, replicates=(0, 1, 2), base_seed=5,
                data_checksum=pool.checksum, resources=Resources().to_dict(), keep_weights="all", code_version="test",
                teachers=teachers,
            )  # fmt: skip
            assert set(run_trial(request).values()) == {"done"}
        yield pool, StudyFolder(LocalStorage(root / "runs"), "s").ledger


@pytest.mark.parametrize("identity", [TEACHER, ATTENTION])
def test_a_run_keeps_the_group_of_each_bag_and_of_the_bag_of_each_instance(committed, identity):
    pool, ledger = committed
    frame = pd.read_parquet(io.BytesIO(ledger.read_file(identity, 1, PREDICTIONS)))
    assert set(frame["level"]) == {"bag", "instance"} or identity == ATTENTION
    assert np.array_equal(frame["group"], pool.group[frame["bag_index"]])
    assert len(set(pool.group)) < len(pool.group)  # two images of each tissue core


@pytest.mark.parametrize("identity", [TEACHER, ATTENTION])
def test_what_a_run_says_of_places_is_found_again_from_its_predictions(committed, identity):
    pool, ledger = committed
    defined = 0
    for replicate in range(3):
        row = ledger.read(identity, replicate)["row"]
        frame = pd.read_parquet(io.BytesIO(ledger.read_file(identity, replicate, PREDICTIONS)))
        mine = frame[(frame["split"] == "test") & (frame["level"] == "instance")]
        assert frame.drop(mine.index)["x"].isna().all()
        position = np.argsort(pool.bags.instance)[mine["index"]]
        assert np.array_equal(mine[["x", "y"]], pool.xy[position]) and np.array_equal(
            mine["image"], pool.image[position]
        )
        maps = localisation.tile_maps(mine["image"].to_numpy(int), mine[["x", "y"]].to_numpy())
        for column, name in (("label", "instance_froc"), ("label_wide", "instance_froc_wide")):
            truth = mine[column].fillna(-1).to_numpy(int)
            detections = localisation.find_detections(maps, truth, mine["logit"].to_numpy())
            assert row[name] == pytest.approx(localisation.froc(detections), nan_ok=True)
            defined += row[name] == row[name]
        known = mine[mine["label"].notna()]
        called = known["logit"].to_numpy() > row["instance_threshold"]
        wanted = localisation.dice(known["label"].to_numpy(int), called)
        assert row["instance_dice_tuned"] == pytest.approx(wanted, nan_ok=True)
    assert defined >= 4
