"""Class maps as reference rows: they find what makes an image positive, where it is, on the replicate's own folds."""

import dataclasses

import numpy as np
import pytest
import torch

from d2l_study.data.colon_synthetic import SyntheticColonBags
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig
from d2l_study.learning.class_maps import PIXELS, _Images, fit_class_map, image_scores

torch.set_num_threads(1)

CONFIG = StudentConfig(
    steps=80, eval_every=20, batch_bags=4, learning_rate=3e-3, select="loss", augment="dihedral", temperature=1.0
)


@pytest.fixture(scope="module")
def replicates(tmp_path_factory):
    """Two folds of small synthetic images, full of large nuclei or without any of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(tmp_path_factory.mktemp("cache")))
        data = SyntheticColonBags(images=20, side=96, nuclei=14, witnesses=0.6, folds=4)
        pool = data.load_pool()
        yield [data.replicate(pool, number, base_seed=1) for number in (0, 1)]


@pytest.mark.parametrize("kind", ["cam", "peak"])
def test_it_says_where_the_witnesses_are(replicates, kind):
    (fitted,) = fit_class_map(kind, CONFIG, replicates[:1])
    assert fitted.status == "done" and fitted.stage == kind and not fitted.oracle
    assert fitted.metrics["instance_auc"] > 0.65
    assert len(fitted.logits["test", "instance"]) == len(replicates[0].test.instance)
    assert len(fitted.logits["test", "bag"]) == len(replicates[0].test)
    assert {"instance_auc_within", "instance_threshold", "val_bag_nll", "bag_f1"} <= set(fitted.metrics)


def test_packed_and_resumed_are_the_same_as_one_by_one(replicates):
    config = dataclasses.replace(CONFIG, steps=6, eval_every=2)
    kept: dict[int, bytes] = {}
    together = fit_class_map("cam", config, replicates, checkpoint=kept.__setitem__, checkpoint_every=4)
    (alone,) = fit_class_map("cam", config, replicates[1:])
    resumed = fit_class_map("cam", config, replicates, resume=kept)
    assert sorted(kept) == [0, 1]
    for key in alone.logits:
        assert np.array_equal(alone.logits[key], together[1].logits[key])
        assert np.array_equal(resumed[1].logits[key], together[1].logits[key])


def test_labels_of_instances_and_of_test_images_change_nothing(replicates):
    config = dataclasses.replace(CONFIG, steps=4, eval_every=2)
    (before,) = fit_class_map("cam", config, replicates[:1])

    def blind(bags, label):
        return dataclasses.replace(bags, instance_label=1 - bags.instance_label, label=label)

    one = replicates[0]
    other = dataclasses.replace(
        one, train=blind(one.train, one.train.label), val=blind(one.val, one.val.label),
        test=blind(one.test, 1 - one.test.label),
    )  # fmt: skip
    (after,) = fit_class_map("cam", config, [other])
    assert all(np.array_equal(before.logits[key], after.logits[key]) for key in before.logits)


def test_images_are_halved_by_the_mean(replicates):
    from PIL import Image

    images = _Images(replicates[:1])
    bag = int(replicates[0].test.number[0])
    whole = np.asarray(Image.open(images.pool.image_of(bag)).convert("RGB"), np.float64)
    mean = whole.reshape(48, 2, 48, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    assert images.image[bag].shape == (1, 3, 48, 48) and np.abs(images.image[bag][0] - mean).max() <= 0.5
    assert len(images.centres(bag)) == images.pool.bags.sizes[bag]


def test_the_map_of_an_image_is_the_one_its_instances_were_scored_on(replicates):
    from d2l_study.learning.prediction import Compute
    from d2l_study.slides.image_files import read_image

    one = replicates[0]
    (fitted,) = fit_class_map("cam", dataclasses.replace(CONFIG, steps=20), [one])
    bag = int(one.test.number[0])
    size = int(one.test.sizes[0])
    image, xy = read_image(one.pool.image_of(bag)), one.pool.xy[one.pool.bags.bag_of == bag]
    found, places = image_scores(fitted.params, image, xy, one, Compute())
    assert found.shape == (96 // PIXELS, 96 // PIXELS)
    np.testing.assert_allclose(places, fitted.logits["test", "instance"][:size], rtol=1e-5, atol=1e-6)
    middles = np.argwhere(found == found)[:, ::-1] * PIXELS + (PIXELS - 1) / 2  # (column, row) of each element
    np.testing.assert_allclose(
        image_scores(fitted.params, image, middles, one, Compute())[1], found.ravel(), rtol=1e-5, atol=1e-6
    )


def test_data_without_images_is_refused(make_replicate):
    with pytest.raises(UserError, match="class maps need images; data set mnist has none"):
        fit_class_map("cam", CONFIG, [make_replicate()])
