"""A model's folder: read back as it was written, refused when altered."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from d2l_study.data.fingerprint import TrainingMarks
from d2l_study.errors import UserError
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.model_folder import (
    CARD,
    MODEL,
    README,
    MetricRecord,
    ModelRecord,
    read_model_folder,
    write_model_folder,
)
from d2l_study.models import MilModel

RECORD = ModelRecord(
    0.5, 1.25, {"bag_auc": MetricRecord(0.9, 0.85, 0.8, 0.9, 5), "bag_f1": MetricRecord(0.5)}, {"train_bags": 8},
    {"precision": "float32"}, TrainingMarks(("training",), ("a" * 16,), ("b" * 16,), ("c" * 16,)), "the only one",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    model = MilModel((3, 27, 27), "attention", 16)
    card = ModelCard("teacher", {"data": {"dataset": "colon"}}, (0.5,) * 3, (0.2,) * 3, "s", "ab" * 10, 2, -1.0)
    stored = StoredModel(model, model.init(np.random.default_rng(5)), card)
    write_model_folder(tmp_path, stored, RECORD, "# A model\n", {"torch": "2"})
    return tmp_path, stored


def test_what_is_read_is_what_was_written(folder):
    place, stored = folder
    found, record = read_model_folder(place)
    assert found.card == stored.card and found.model == stored.model
    assert all(torch.equal(found.params[name], value) for name, value in stored.params.items())
    assert math.isnan(record.metrics["bag_f1"].mean) and record.metrics["bag_f1"].value == 0.5
    only = {"bag_auc": RECORD.metrics["bag_auc"]}
    assert dataclasses.replace(record, metrics=only | {"bag_auc": record.metrics["bag_auc"]}) == dataclasses.replace(
        RECORD, metrics=only
    )


@pytest.mark.parametrize("name", [CARD, MODEL])
@pytest.mark.parametrize("where", [0.01, 0.5, 0.99])
def test_a_file_altered_after_saving_is_refused(folder, name, where):
    path = folder[0] / name
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=str(folder[0])):
        read_model_folder(folder[0])


def test_the_page_for_people_may_be_changed(folder):
    (folder[0] / README).write_text("notes")
    read_model_folder(folder[0])


def test_what_is_no_model_is_answered(folder, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        read_model_folder(tmp_path / "none")
    (folder[0] / MODEL).unlink()
    with pytest.raises(UserError, match=f"has no {MODEL}"):
        read_model_folder(folder[0])
    with pytest.raises(UserError, match="a file"):
        read_model_folder(folder[0] / CARD)


def test_another_model_with_this_card_is_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    place, stored = folder
    params = {name: value + 1 for name, value in stored.params.items()}
    write_model_folder(other, dataclasses.replace(stored, params=params), RECORD, "", {})
    (place / MODEL).write_bytes((other / MODEL).read_bytes())
    with pytest.raises(UserError, match="is not the file that was saved"):
        read_model_folder(place)
