"""Labelling instances with a stored model: a logit, a probability and a label for each, written as Parquet.

An instance's logit is that of the bag which holds it alone, for a teacher as for a student. `predicted` is what the
model calls it, everywhere by one threshold, the model's own: positive if the logit lies above it. A model whose
threshold could not be set predicts nothing. What is known of an instance is called `truth`.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2l_study import __version__
from d2l_study.atomic_files import atomic_write
from d2l_study.errors import UserError
from d2l_study.inference.inputs import Input, read_parts
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.output_folder import check_replaced, make_folder, output_folder, shown, writing
from d2l_study.inference.score_checkpoint import ScoreCheckpoint, kept_until_written
from d2l_study.learning.metrics import probability
from d2l_study.learning.prediction import Compute, Normalise, chunk_size
from d2l_study.parquet_files import has_metadata, parquet_writer
from d2l_study.slides.score_files import BLOCK, METADATA

SCORES = "scores.parquet"

NOT_FINITE = (
    "the model gives scores that are not finite numbers: are the instances far larger than those it was trained on?"
)

ProgressCallback = Callable[[str, int, int], None]
"""Called while instances are scored: (the input or file in work, instances scored so far, instances in all)."""


@dataclass(frozen=True)
class Labels:
    """The labels of n instances.

    logit: (n,) float32; score: (n,) float64, its probability in [0, 1]; predicted: (n,) bool, whether the logit lies
    above the model's threshold (as in `instance_*_tuned` of the tables), None if the model has none.
    """

    logit: np.ndarray
    score: np.ndarray
    predicted: np.ndarray | None


@dataclass(frozen=True)
class Summary:
    """What was written: instances in all, and those predicted positive, None if the model has no threshold."""

    path: Path
    count: int
    positive: int | None


class PatchTerms:
    """What patches contribute to a bag (`models.pooling.Terms`): a logit each, and beside it, where the model pools by
    attention, the attention. Parameters go to the device once."""

    def __init__(self, stored: StoredModel, compute: Compute | None = None) -> None:
        self.stored, self.compute = stored, compute or Compute()
        self.normalise = normaliser(stored, self.compute)
        self.params = {name: value.to(self.compute.device) for name, value in stored.params.items()}

    @property
    def columns(self) -> int:
        """Numbers of a patch."""
        return 2 if "attention.w.weight" in self.params else 1

    @torch.no_grad()
    def __call__(self, patches: np.ndarray) -> np.ndarray:
        """(n, columns) float32 of (n, C, H, W) uint8; some go through the network at a time.

        `UserError` if a logit is no number.
        """
        out = np.empty((len(patches), self.columns), np.float32)
        size = chunk_size(self.stored.model.shape)
        for first in range(0, len(patches), size):
            with self.compute.autocast():
                terms = self.stored.model.terms(self.params, self.normalise(patches[first : first + size]))
            rows = slice(first, first + len(terms.logit))
            out[rows, 0] = terms.logit.cpu().numpy()
            if terms.attention is not None:
                out[rows, 1] = terms.attention.cpu().numpy()
        if not np.isfinite(out[:, 0]).all():
            raise UserError(NOT_FINITE)
        return out


def label_instances(stored: StoredModel, patches: np.ndarray, compute: Compute | None = None) -> Labels:
    """The labels of patches, (n, C, H, W) uint8; a few hundred at a time go through the network.

    `UserError` if they are not of the model's shape and type.
    """
    shape = stored.model.patch_shape
    if patches.shape[1:] != shape or patches.dtype != np.uint8:
        wanted = f"(n, {', '.join(str(n) for n in shape)})"
        raise UserError(f"patches of {patches.dtype} with dimensions {patches.shape}; expected uint8 with {wanted}")
    logit = PatchTerms(stored, compute)(patches)[:, 0]
    threshold = stored.card.instance_threshold
    return Labels(logit, probability(logit), None if threshold is None else logit > threshold)


def normaliser(stored: StoredModel, compute: Compute) -> Normalise:
    """How the instances of a stored model are normalised: as in its training."""
    card = stored.card
    unit_length = card.sections.get("data", {}).get("normalise") == "length"
    return Normalise.by(card.mean, card.std, unit_length, stored.model.shape, compute.device)


def origin(stored: StoredModel) -> dict[str, Any]:
    """Which model, for the files that it labels."""
    card = stored.card
    return {
        "config_id": card.config_id, "replicate": card.replicate, "stage": card.stage, "study": card.study,
        "instance_threshold": card.instance_threshold,
    }  # fmt: skip


def scoring_settings(stored: StoredModel, compute: Compute | None) -> dict[str, Any]:
    """What scores depend on beside the pixels: the model's numbers, how it is computed, and by which version."""
    found = hashlib.sha256(repr((stored.model, stored.card.mean, stored.card.std)).encode())
    for name, value in sorted(stored.params.items()):
        found.update(f"{name} {tuple(value.shape)}".encode())
        found.update(value.contiguous().numpy().tobytes())
    return {"model": found.hexdigest(), "compute": asdict(compute or Compute()), "version": __version__}


def check_scores(folder: Path) -> None:
    """`UserError` if something else than scores of ours has the name of their file."""
    check_replaced(folder / SCORES, lambda path: has_metadata(path, METADATA))


def label_inputs(
    stored: StoredModel,
    inputs: Sequence[Input],
    out: str | Path,
    compute: Compute | None = None,
    progress: ProgressCallback | None = None,
) -> Summary:
    """Label everything that `inputs.open_inputs` found and write `out/scores.parquet`, in parts of bounded memory.

    Columns: source, index (the position in the source), logit, score, predicted (1, 0, or null without a threshold);
    the file's metadata say which model it was. The file appears whole or not at all; an older one is replaced. If it is
    interrupted, what was scored is kept, and the same call goes on from there.
    `UserError` if the folder cannot be written or an input turns out to be damaged.
    """
    folder = output_folder(out)
    check_scores(folder)
    make_folder(folder)
    count = sum(entry.count for entry in inputs)
    identity = {**scoring_settings(stored, compute), "inputs": [[shown(entry.source), entry.count] for entry in inputs]}
    kept = ScoreCheckpoint.open(folder / "scores", identity, (count,))
    with kept_until_written(kept) as work:
        if progress is not None:
            progress(SCORES, kept.done, count)
        if not _score(stored, inputs, kept, compute, progress):
            kept.begin_again()
            _score(stored, inputs, kept, compute, progress)
        work.scored = True
        with writing(folder), atomic_write(folder / SCORES) as path:
            positive = _write_scores(path, stored, inputs, kept.logits)
    return Summary(folder / SCORES, count, positive)


def _score(
    stored: StoredModel, inputs: Sequence[Input], kept: ScoreCheckpoint, compute: Compute | None,
    progress: ProgressCallback | None,
) -> bool:  # fmt: skip
    """Score what is not scored yet. False if what was scored before are not the first patches of these inputs."""
    first = crc = 0
    for part in read_parts(inputs, stored.model.patch_shape):
        last = first + len(part.index)
        if last <= kept.done:
            crc = zlib.crc32(part.patches.data, crc)
        elif first != kept.done or crc != kept.pixels:
            return False
        else:
            kept.logits[first:last] = label_instances(stored, part.patches, compute).logit
            crc = kept.pixels = zlib.crc32(part.patches.data, crc)
            kept.reached(last)
            if progress is not None:
                progress(SCORES, last, len(kept.logits))
        first = last
    return crc == kept.pixels


def _write_scores(path: Path, stored: StoredModel, inputs: Sequence[Input], logits: np.ndarray) -> int | None:
    """The rows of all inputs, in blocks; returns how many are predicted positive."""
    import pyarrow as pa

    schema = pa.schema(
        [("source", pa.string()), ("index", pa.int64()), ("logit", pa.float32()), ("score", pa.float64()),
         ("predicted", pa.int8())],
        metadata={METADATA: json.dumps(origin(stored))},
    )  # fmt: skip
    threshold, positive = stored.card.instance_threshold, 0
    names = [shown(entry.source) for entry in inputs]
    starts = np.cumsum([0, *(entry.count for entry in inputs)])
    with parquet_writer(path, schema) as writer:
        for first in range(0, len(logits), BLOCK):
            logit = np.array(logits[first : first + BLOCK])
            row = np.arange(first, first + len(logit))
            of = np.searchsorted(starts, row, side="right") - 1
            predicted = pa.nulls(len(logit), pa.int8())
            if threshold is not None:
                positive += int((logit > threshold).sum())
                predicted = (logit > threshold).astype(np.int8)
            columns = [[names[i] for i in of], row - starts[of], logit, probability(logit), predicted]
            writer.write_table(pa.Table.from_arrays(
                [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
            ))  # fmt: skip
    return None if threshold is None else positive
