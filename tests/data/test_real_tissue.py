"""The real archives, where the variable D2L_DATA names the folder that holds them."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from d2l_study.data import BreastBags, ColonBags, breast, colon
from d2l_study.environment import data_root

pytestmark = pytest.mark.skipif(not os.environ.get("D2L_DATA"), reason="D2L_DATA names no folder of tissue archives")


def have(find):
    if find(data_root()) is None:
        pytest.skip("the archive is not in the folder of D2L_DATA")


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(tmp_path_factory.mktemp("real")))
        yield {name: data.load_pool() for name, data, module in
               (("colon", ColonBags(), colon), ("breast", BreastBags(), breast))
               if module.image_folder(data_root()) is not None}  # fmt: skip


def test_colon_counts_are_those_of_the_files_and_of_the_readme(pools):
    have(colon.image_folder)
    pool = pools["colon"]
    counts = dict.fromkeys(colon.CLASSES, 0)
    for image in colon.find_images(data_root()):
        for kind, path in image.nuclei.items():
            counts[kind] += len(loadmat(path)["detection"])
    assert len(pool.instances) == sum(counts.values()) and pool.bags.instance_label.sum() == counts["epithelial"]
    assert len(pool.bags) <= colon.IMAGES and len(pool.instances) <= colon.NUCLEI
    if len(pool.bags) == colon.IMAGES:
        assert len(pool.instances) == colon.NUCLEI and pool.bags.label.sum() == 51
    assert pool.bags.sizes.min() >= 1 and pool.bags.sizes.max() <= 796


def test_colon_patches_are_centred_on_dark_nuclei(pools):
    """A nucleus is darker than the tissue about it: at a shift of a pixel or a swap of the axes that would be lost."""
    have(colon.image_folder)
    pool = pools["colon"]
    grey = pool.instances[::7].mean(axis=1)
    centre, rim = grey[:, 9:18, 9:18].mean(), np.concatenate([grey[:, :3].ravel(), grey[:, -3:].ravel()]).mean()
    assert centre < rim - 15
    bag = int(np.argmax(pool.bags.sizes))
    first = pool.bags.offsets[bag]
    image = np.asarray(Image.open(pool.image_of(bag)).convert("RGB")).astype(float)
    x, y = pool.xy[first : pool.bags.offsets[bag + 1]].astype(int).clip(0, 499).T
    assert image[y, x].mean() < image[x, y].mean() - 15


def test_breast_counts_and_cores(pools):
    have(breast.image_folder)
    pool = pools["breast"]
    assert set(pool.bags.sizes) == {672} and len(pool.bags) <= breast.IMAGES
    assert len(pool.group_names) <= 10
    if len(pool.bags) == breast.IMAGES:
        assert pool.bags.label.sum() == 26
    primary, wide = pool.bags.instance_label, pool.truths["wide"]
    malignant = pool.bags.label[pool.bags.bag_of] == 1
    assert np.array_equal(primary == 1, wide == 1) and (wide[~malignant] == 0).all()
    assert not (primary[malignant] == 0).any() and not (primary[~malignant] == 1).any()


@pytest.mark.parametrize(("name", "data", "runs"), [("colon", ColonBags(), 50), ("breast", BreastBags(), 25)])
def test_all_folds_of_five_repeats_can_be_trained(pools, name, data, runs):
    if name not in pools:
        pytest.skip("the archive is not in the folder of D2L_DATA")
    if data.num_bags is None and len(pools[name].bags) < 3 * data.folds and name == "colon":
        pytest.skip("too few images for the folds")
    list(data.replicates(pools[name], runs, 1))
