"""Files of every layout that the field's tools write, read back vector by vector."""

import dataclasses
import math
import os
import subprocess

import feature_files as files
import h5py
import numpy as np
import pytest
import torch

from d2l_study.data import FeatureBags

pytestmark = pytest.mark.usefixtures("cache")

LAYOUTS = {
    "trident": (files.trident, np.float16, "level-0 pixels", "top-left", 1.0),
    "clam_h5": (files.clam_h5, np.float32, "", "", 1.0),
    "clam_pt": (files.clam_pt, np.float32, None, None, None),
    "stamp": (files.stamp, np.float16, "µm", "top-left", 0.5),
    "nnmil": (files.nnmil, np.float32, "", "", 1.0),
    "slideflow": (files.slideflow, np.float32, "level-0 pixels", "centre", 1.0),
    "npy": (files.npy, np.float64, None, None, None),
    "npz": (files.npz, np.float32, "", "", 1.0),
    "dictionary_pt": (files.dictionary_pt, np.float32, "", "", 1.0),
}


def check(pool, slides, dtype):
    """The pool has these slides' vectors, exactly and in the precision they came in."""
    assert pool.instances.dtype == dtype and pool.shape == (slides[0][0].vectors.shape[1],)
    assert pool.names == tuple(slide.name for slide, _ in slides)
    assert pool.bags.label.tolist() == [label for _, label in slides]
    for b, (slide, _) in enumerate(slides):
        mine = slice(pool.bags.offsets[b], pool.bags.offsets[b + 1])
        assert np.array_equal(pool.instances[pool.bags.instance[mine]], slide.vectors.astype(dtype))
        assert {pool.slides[s] for s in pool.image[mine]} == {slide.name}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_read_as_it_was_written(layout, tmp_path):
    write, dtype, unit, anchor, scale = LAYOUTS[layout]
    slides = files.cohort(dtype=dtype)
    for slide, _ in slides:
        write(tmp_path / "features", slide)
    pool = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool()
    check(pool, slides, dtype)
    assert isinstance(pool.instances, np.memmap)
    if scale is None:
        assert np.isnan(pool.xy).all()
        return
    assert (pool.coordinate_unit, pool.tiles.anchor) == (unit, anchor)
    assert np.allclose(pool.xy, np.concatenate([slide.coords for slide, _ in slides]) * scale)


def test_one_encoder_may_be_written_in_several_ways_in_a_data_set(tmp_path):
    slides = files.cohort(4)
    for (slide, _), encoder in zip(slides, ("UNI-v1", "uni_v1", "uni_v1", "uni v1"), strict=True):
        files.trident(tmp_path / "features", slide, encoder=encoder)
    assert FeatureBags(path=str(files.table(tmp_path / "t.csv", slides))).load_pool().extractor == "UNI-v1"


def test_what_trident_and_stamp_say_of_encoder_and_tiles_is_kept(tmp_path):
    slides = files.cohort()
    for i, (slide, _) in enumerate(slides):
        files.trident(tmp_path / "a" / "20x_256px_0px_overlap" / "features_uni_v1", slide, level0=40 if i % 2 else 20)
        files.stamp(tmp_path / "b", slide)
    for name in "ab":
        files.table(tmp_path / name / "slides.csv", slides)
    pool = FeatureBags(path=str(tmp_path / "a")).load_pool()
    assert pool.extractor == "uni_v1" and pool.tiles.scale == "256 px at 20×"
    assert pool.side.tolist() == [256.0, 512.0] * 5  # level-0 pixels of slides scanned at 20× and at 40×
    pool = FeatureBags(path=str(tmp_path / "b")).load_pool()
    assert pool.extractor == "uni2" and pool.side.tolist() == [128.0] * 10


def test_torchmils_folders_need_no_table_and_label_the_instances(tmp_path):
    slides = files.cohort()
    for slide, label in slides:
        files.torchmil(tmp_path, slide, label)
    pool = FeatureBags(path=str(tmp_path)).load_pool()
    check(pool, slides, np.float32)
    assert np.array_equal(pool.bags.instance_label, np.concatenate([slide.truth for slide, _ in slides]))
    assert np.allclose(pool.xy, np.concatenate([slide.coords for slide, _ in slides]))
    assert pool.coordinate_unit == "" and all(math.isnan(side) for side in pool.side)


def test_torchmil_itself_reads_the_same_from_them(tmp_path):
    """D2L_TORCHMIL names a Python that has torchmil, which only reads such folders."""
    if (python := os.environ.get("D2L_TORCHMIL")) is None:
        pytest.skip("D2L_TORCHMIL names no Python with torchmil")
    slides = files.cohort()
    for slide, label in slides:
        files.torchmil(tmp_path / "mil", slide, label)
    code = (
        "import numpy as np; from torchmil.datasets import BinaryClassificationDataset\n"
        f"at = {str(tmp_path / 'mil')!r} + '/'\n"
        "bags = BinaryClassificationDataset(at + 'features', at + 'labels', at + 'patch_labels', at + 'coords',\n"
        "                                   bag_keys=['X', 'Y', 'y_inst', 'coords'], verbose=False)\n"
        "found = {f'{key}{i}': np.asarray(bag[key]) for i, bag in enumerate(bags) for key in bag.keys()}\n"
        "np.savez(at + '../read.npz', names=bags.bag_names, **found)\n"
    )
    subprocess.run([python, "-c", code], check=True, capture_output=True)
    pool = FeatureBags(path=str(tmp_path / "mil")).load_pool()
    with np.load(tmp_path / "read.npz") as read:
        assert pool.names == tuple(read["names"].tolist())
        for b in range(len(pool.bags)):
            mine = slice(pool.bags.offsets[b], pool.bags.offsets[b + 1])
            assert np.array_equal(read[f"X{b}"], pool.instances[pool.bags.instance[mine]])
            assert np.array_equal(read[f"y_inst{b}"], pool.bags.instance_label[mine])
            assert int(read[f"Y{b}"]) == pool.bags.label[b] and np.array_equal(read[f"coords{b}"], pool.xy[mine])


@pytest.mark.parametrize("suffix", ["", "_patches"])
def test_places_of_clams_tensors_stand_beside_them(suffix, tmp_path):
    slides = files.cohort()
    (tmp_path / "patches").mkdir()
    for slide, _ in slides:
        files.clam_pt(tmp_path / "pt_files", slide)
        path = files.clam_patches(tmp_path / "patches", slide)
        path.rename(path.with_name(f"{slide.name}{suffix}.h5"))
    pool = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool()
    check(pool, slides, np.float32)
    assert np.array_equal(pool.xy, np.concatenate([slide.coords for slide, _ in slides]))
    assert pool.coordinate_unit == "level-0 pixels" and pool.side.tolist() == [256.0] * 10


def test_clams_coordinates_say_how_large_the_tiles_of_its_h5_files_are(tmp_path):
    """`h5_files` have the places, but nothing of the tiles; `patches` beside them do, if they are of the same ones."""
    slides = files.cohort()
    (tmp_path / "patches").mkdir()
    for slide, _ in slides:
        files.clam_h5(tmp_path / "h5_files", slide)
    data = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides)))
    assert data.load_pool().coordinate_unit == ""
    for slide, _ in slides:
        files.clam_patches(tmp_path / "patches", slide)
    pool = data.load_pool()
    check(pool, slides, np.float32)
    assert pool.coordinate_unit == "level-0 pixels" and pool.side.tolist() == [256.0] * 10
    for slide, _ in slides:
        moved = dataclasses.replace(slide, coords=slide.coords + 1)
        files.clam_patches(tmp_path / "patches", moved)
    assert data.load_pool().coordinate_unit == ""


@pytest.mark.parametrize("name", ["set.npz", "set.h5"])
def test_one_file_of_a_whole_data_set(name, tmp_path):
    slides = files.cohort(12)
    fold = np.stack([np.arange(12) % 4, np.arange(12) // 2 % 4])
    path = files.whole_set(tmp_path / name, [s for s, _ in slides], [y for _, y in slides], test_fold=fold)
    pool = FeatureBags(path=str(path)).load_pool()
    assert np.array_equal(pool.instances, np.concatenate([slide.vectors for slide, _ in slides]))
    assert np.array_equal(pool.bags.instance_label, np.concatenate([slide.truth for slide, _ in slides]))
    assert pool.bags.sizes.tolist() == [len(slide.vectors) for slide, _ in slides]
    assert np.array_equal(pool.fold, fold)


def test_bags_of_a_whole_data_set_may_lie_mingled_in_it(tmp_path, rng):
    slides = files.cohort(6)
    path = files.whole_set(tmp_path / "set.npz", [s for s, _ in slides], [y for _, y in slides])
    with np.load(path) as arrays:
        kept = dict(arrays)
    order = rng.permutation(len(kept["bag_index"]))
    np.savez(path, **kept | {name: kept[name][order] for name in ("features", "bag_index", "instance_label")})
    data = FeatureBags(path=str(path), folds=3)
    pool = data.load_pool()
    for b, (slide, _) in enumerate(slides):
        mine = pool.bags.instance[pool.bags.offsets[b] : pool.bags.offsets[b + 1]]
        assert np.array_equal(np.sort(pool.instances[mine], axis=0), np.sort(slide.vectors, axis=0))
    replicate = data.replicate(pool, 0, base_seed=1)
    seen = pool.instances[replicate.train.instance].astype(float)
    assert np.allclose(replicate.mean, seen.mean(axis=0)) and np.allclose(replicate.std, seen.std(axis=0))


@pytest.mark.parametrize(
    "kind", [{}, {"chunks": True}, {"chunks": (7, 12)}, {"chunks": (1, 12)}, {"chunks": (3, 5)},
             {"compression": "gzip"}, {"chunks": (1, 12), "shuffle": True}, {"chunks": (4, 12), "fletcher32": True}],
)  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_however_hdf5_has_stored_the_rows(kind, order, tmp_path):
    slides = files.cohort()
    for slide, _ in slides:
        (tmp_path / "features").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "features" / f"{slide.name}.h5", "w") as file:
            grown = {"maxshape": (None, 12)} if kind else {}
            file.create_dataset("features", data=slide.vectors.astype(f"{order}f4"), **grown, **kind)
    pool = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool()
    check(pool, slides, np.float32)


def test_rows_that_were_written_in_another_order_come_in_theirs(tmp_path):
    slides = files.cohort(sizes=(40,))
    for slide, _ in slides:
        (tmp_path / "features").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "features" / f"{slide.name}.h5", "w") as file:
            made = file.create_dataset("features", (40, 12), np.float32, chunks=(1, 12), maxshape=(None, 12))
            for i in np.random.default_rng(0).permutation(40):  # chunks lie in the file as they are first written
                made[i] = slide.vectors[i]
    pool = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool()
    check(pool, slides, np.float32)


def test_files_are_told_apart_by_content_not_by_name(tmp_path):
    slides = files.cohort()
    for i, (slide, _) in enumerate(slides):
        write = (files.clam_h5, files.npy, files.npz, files.clam_pt)[i % 4]
        write(tmp_path / "features", slide).rename(tmp_path / "features" / f"{slide.name}.h5")
    check(FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool(), slides, np.float32)


def test_bfloat16_and_files_of_an_old_torch(tmp_path):
    slides = files.cohort()
    (tmp_path / "features").mkdir()
    for i, (slide, _) in enumerate(slides):
        tensor = torch.from_numpy(slide.vectors)
        torch.save(tensor.to(torch.bfloat16) if i % 2 else tensor, tmp_path / "features" / f"{slide.name}.pt",
                   _use_new_zipfile_serialization=i % 4 > 1)  # fmt: skip
    pool = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool()
    rounded = torch.from_numpy(slides[1][0].vectors).to(torch.bfloat16).float().numpy()
    assert np.array_equal(pool.instances[pool.bags.instance[pool.bags.offsets[1] : pool.bags.offsets[2]]], rounded)
    assert np.array_equal(pool.instances[pool.bags.instance[: pool.bags.offsets[1]]], slides[0][0].vectors)


def test_files_of_several_precisions_are_kept_in_the_widest(tmp_path):
    slides = files.cohort(dtype=np.float16)
    for i, (slide, _) in enumerate(slides):
        (files.clam_h5 if i % 2 else files.nnmil)(tmp_path / "features", slide)
    pool = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool()
    check(pool, slides, np.float32)


def bfloat16_hdf5(path, values, rows):
    """HDF5's own bfloat16, in chunks of `rows` rows, with more data behind; values: (N, D) torch.bfloat16."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    kind.set_precision(16)
    with h5py.File(path, "w") as file:
        chunked = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        chunked.set_chunk((min(rows, len(values)), values.shape[1]))
        space = h5py.h5s.create_simple(tuple(values.shape))
        made = h5py.h5d.create(file.id, b"features", kind, space, chunked)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values.view(torch.int16).numpy(), mtype=kind)
        file["coords"] = np.zeros((len(values), 2), np.int64)


@pytest.mark.parametrize("rows", [1, 4])
def test_numbers_that_hdf5_stores_in_another_type_than_numpys(rows, tmp_path):
    slides = files.cohort(4)
    for slide, _ in slides:
        path = tmp_path / "features" / f"{slide.name}.h5"
        path.parent.mkdir(exist_ok=True)
        bfloat16_hdf5(path, torch.from_numpy(slide.vectors).bfloat16(), rows)
    pool = FeatureBags(path=str(files.table(tmp_path / "slides.csv", slides))).load_pool()
    expected = np.concatenate([torch.from_numpy(slide.vectors).bfloat16().float().numpy() for slide, _ in slides])
    assert np.array_equal(pool.instances, expected)
