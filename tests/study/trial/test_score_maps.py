"""Maps of test images are kept with the run, drawn for its page, and kept from MLflow where images are private."""

import io

import numpy as np
import pytest
import torch
from make_trial_request import train_kept_model
from PIL import Image

from d2l_study.data import SyntheticColonBags
from d2l_study.inference.label import label_instances
from d2l_study.inference.model_file import from_bytes
from d2l_study.learning import StudentConfig, TeacherConfig
from d2l_study.study.commands.label_truth import KnownImages
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import SCORE_MAPS, WEIGHTS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.map_pictures import content_here, images_allowed, map_pictures, stored_maps
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

CONFIG = "ab" * 10


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = SyntheticColonBags(images=9, side=60, folds=3).resolved()
        config = TeacherConfig(steps=4, eval_every=2, feature_width=16)
        request = TrialRequest(
            root=str(tmp_path_factory.mktemp("root")), study="s", config_id=CONFIG, label="none", stage="teacher",
            sections={"data": data.to_dict(), "teacher": config.to_dict()}, replicates=(0, 1), base_seed=5,
            data_checksum=data.load_pool().checksum, resources=Resources().to_dict(), keep_weights="all",
            code_version="test",
        )  # fmt: skip
        assert set(run_trial(request).values()) == {"done"}
        yield StudyFolder(LocalStorage(request.root), "s"), data.load_pool()


def test_the_first_replicate_keeps_maps_and_its_scores_of_true_instances(study):
    folder, pool = study
    assert SCORE_MAPS not in folder.ledger.read(CONFIG, 1)["files"]
    metas, arrays = stored_maps(folder, CONFIG, 0)
    assert {pool.bags.label[meta["bag"]] for meta in metas} == {0, 1}
    stored = from_bytes(folder.ledger.read_file(CONFIG, 0, WEIGHTS))
    for k, meta in enumerate(metas):
        mine = pool.bags.instance[pool.image == meta["image"]]
        np.testing.assert_allclose(
            arrays[f"places{k}"], label_instances(stored, np.asarray(pool.instances[mine])).logit, atol=1e-5
        )
        assert arrays[f"logits{k}"].shape == (meta["grid"]["rows"], meta["grid"]["columns"])


def test_pictures_are_drawn_from_what_is_kept(study):
    folder, _ = study
    pictures = map_pictures(folder, CONFIG, None, 0)
    assert set(pictures) == {f"overlays/{k + 1}.png" for k in range(len(stored_maps(folder, CONFIG, 0)[0]))}
    assert Image.open(io.BytesIO(pictures["overlays/1.png"]())).size[1] > 560
    assert map_pictures(folder, CONFIG, None, 1) == {}


def test_pictures_are_drawn_of_data_where_the_study_has_them_now(tmp_path):
    folder = StudyFolder(LocalStorage(tmp_path), "s")
    section = {"dataset": "colon", "root": "/old", "folds": 5}
    folder.ledger.write_config(CONFIG, {"sections": {"data": section}, "study": "s"})
    entry = {"config_id": CONFIG, "stage": "teacher", "method": "none", "values": {}, "varied": [], "replicates": [0]}
    folder.write("", {"space": {"data": {"root": "/new"}}}, [entry])
    assert content_here(folder, CONFIG)["sections"]["data"] == {**section, "root": "/new"}


def test_a_class_map_keeps_its_maps_too(study):
    folder, pool = study
    sections = folder.ledger.read_config(CONFIG)["sections"]
    student = StudentConfig(steps=2, eval_every=2, augment="dihedral", temperature=1.0)
    request = TrialRequest(
        root=folder.storage.root, study="s", config_id="cd" * 10, label="cam", stage="cam",
        sections={"data": sections["data"], "student": student.to_dict()}, replicates=(0,), base_seed=5,
        data_checksum=pool.checksum, resources=Resources().to_dict(), keep_weights="none", code_version="test",
    )  # fmt: skip
    assert set(run_trial(request).values()) == {"done"}
    metas, arrays = stored_maps(folder, "cd" * 10, 0)
    assert [m["image"] for m in metas] == [m["image"] for m in stored_maps(folder, CONFIG, 0)[0]]
    for k, meta in enumerate(metas):
        assert arrays[f"logits{k}"].shape == (7, 7) == (meta["grid"]["rows"], meta["grid"]["columns"])  # 60 pixels // 8
        assert (meta["grid"]["x0"], meta["grid"]["stride"]) == (3.5, 8)
        assert len(arrays[f"places{k}"]) == (pool.image == meta["image"]).sum()
    assert Image.open(io.BytesIO(map_pictures(folder, "cd" * 10, None, 0)["overlays/1.png"]())).size[1] > 560


def test_label_knows_the_truth_and_the_part_of_an_image_of_its_data_set(study, tmp_path):
    folder, pool = study
    known = KnownImages.of_model(folder.ledger, CONFIG, 0, None)
    metas, _ = stored_maps(folder, CONFIG, 0)
    truth = known(pool.images[metas[0]["image"]])
    assert truth.note == "a test image of this model"
    np.testing.assert_array_equal(truth.places.label, pool.bags.instance_label[pool.image == metas[0]["image"]])
    assert known(tmp_path / "other.png") is None


def test_label_knows_the_images_that_were_left_over_from_training(study, tmp_path):
    folder, _ = study
    data = SyntheticColonBags(images=15, side=60, folds=3, num_bags=2, unlabelled_bags=1).resolved()
    train_kept_model(folder.storage.root, "7a" * 10, data, teacher=TeacherConfig(steps=1, eval_every=1))
    known = KnownImages.of_model(folder.ledger, "7a" * 10, 0, None)
    pool = data.load_pool()
    made = data.replicate(pool, 0, 5)
    images = dict(zip(pool.image.tolist(), pool.bags.bag_of.tolist(), strict=True))
    notes = {bag: known(pool.images[image]).note for image, bag in images.items()}
    of = {"a training": made.train, "an unlabelled": made.unlabelled, "a validation": made.val, "a test": made.test}
    expected = dict.fromkeys(range(15), "an unused image of this model")
    for words, bags in of.items():
        expected |= dict.fromkeys(bags.number.tolist(), f"{words} image of this model")
    assert notes == expected and len(set(expected.values())) == 5


@pytest.mark.parametrize(
    ("log_images", "dataset", "allowed"),
    [(None, "colon", True), (None, "mnist", True), (None, "manifest", False), (True, "manifest", True),
     (False, "colon", False)],
)  # fmt: skip
def test_private_images_stay_out_of_mlflow_unless_the_space_says_so(log_images, dataset, allowed):
    assert images_allowed({"log_images": log_images}, {"dataset": dataset}) is allowed
