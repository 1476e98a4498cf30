"""Scores in Parquet and in HDF5 are those that were given, place by place, in whatever blocks they came."""

import json

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from d2l_study.data.features import hdf5
from d2l_study.slides import score_files
from d2l_study.slides.score_files import METADATA, TileScores, write_score_hdf5, write_score_table

TRIDENT = {
    "patch_size": 224, "patch_size_level0": 448, "level0_magnification": 40, "target_magnification": 20, "overlap": 0,
    "name": "S-001", "savetodir": "/elsewhere", "level0_width": 9000, "level0_height": 7000,
}  # fmt: skip
ABOUT = {"config_id": "ab12", "instance_threshold": 0.25}


def tiles(count, truth=True):
    rng = np.random.default_rng(count)
    xy = rng.integers(0, 20, (count, 2)) * 448
    logit = rng.normal(0, 3, count).astype(np.float32)
    known = rng.integers(-1, 2, count).astype(np.int8) if truth else None
    return TileScores(xy, logit, 1 / (1 + np.exp(-logit.astype(np.float64))), known)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_table_has_every_tile_in_order(tmp_path, monkeypatch, size):
    monkeypatch.setattr(score_files, "BLOCK", 8)
    given = tiles(30)
    count = write_score_table(tmp_path / "s.parquet", "S-001", given.blocks(size), 0.25, ABOUT)
    assert count == 30
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.column_names == ["slide", "index", "x", "y", "logit", "score", "predicted", "truth"]
    found = table.to_pandas()
    assert found["slide"].tolist() == ["S-001"] * 30
    assert found["index"].tolist() == list(range(30))
    np.testing.assert_array_equal(found[["x", "y"]], given.xy)
    np.testing.assert_array_equal(found["logit"], given.logit)
    np.testing.assert_array_equal(found["score"], given.score)
    np.testing.assert_array_equal(found["predicted"], given.logit > 0.25)
    np.testing.assert_array_equal(found["truth"].fillna(-1), given.truth)
    assert json.loads(table.schema.metadata[METADATA.encode()]) == ABOUT


def test_what_is_not_known_is_null(tmp_path):
    given = tiles(5, truth=False)
    nowhere = TileScores(np.full((5, 2), np.nan), given.logit, given.score)
    write_score_table(tmp_path / "s.parquet", "S-001", [nowhere], None, {})
    found = pq.read_table(tmp_path / "s.parquet")
    assert [found[name].null_count for name in ("x", "y", "predicted", "truth", "score")] == [5, 5, 5, 5, 0]


@pytest.mark.parametrize("size", [1, 7, 100])
def test_hdf5_is_a_file_of_tridents_layout_with_scores(tmp_path, size):
    given = tiles(30)
    assert write_score_hdf5(tmp_path / "s.h5", given.blocks(size), TRIDENT, ABOUT) == 30
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["coords"].dtype == np.int64
        np.testing.assert_array_equal(file["coords"], given.xy)
        np.testing.assert_array_equal(file["scores"], given.score)
        np.testing.assert_array_equal(file["logits"], given.logit)
        assert file["logits"].dtype == np.float32
        assert dict(file["coords"].attrs) == TRIDENT
        assert json.loads(file.attrs[METADATA]) == ABOUT
    said = hdf5.tiles_of(tmp_path / "s.h5")
    assert (said.side, said.scale, said.anchor) == (448, "224 px at 20×", "top-left")


def test_a_slide_without_tiles_makes_files_without_rows(tmp_path):
    write_score_table(tmp_path / "s.parquet", "S-001", [], 0.0, {})
    write_score_hdf5(tmp_path / "s.h5", [], TRIDENT, {})
    assert pq.read_table(tmp_path / "s.parquet").num_rows == 0
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["coords"].shape == (0, 2) and file["scores"].shape == (0,)


def test_an_interrupted_write_leaves_the_older_file(tmp_path):
    def broken():
        yield tiles(3)
        raise RuntimeError("stopped")

    for write, name in ((write_score_table, "s.parquet"), (write_score_hdf5, "s.h5")):
        (tmp_path / name).write_bytes(b"older")
        with pytest.raises(RuntimeError, match="stopped"):
            if write is write_score_table:
                write(tmp_path / name, "S", broken(), None, {})
            else:
                write(tmp_path / name, broken(), TRIDENT, {})
        assert (tmp_path / name).read_bytes() == b"older"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["s.h5", "s.parquet"]
