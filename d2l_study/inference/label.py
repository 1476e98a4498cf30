"""Labelling instances with a stored model: a logit, a probability and a label for each, written as Parquet.

An instance's logit is that of the bag which holds it alone, for a teacher as for a student. `predicted` is what the
model calls it, everywhere by one threshold, the model's own: positive if the logit lies above it. A model whose
threshold could not be set predicts nothing. What is known of an instance is called `truth`.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from d2l_study.errors import UserError
from d2l_study.inference.inputs import Input, read_parts
from d2l_study.inference.model_file import StoredModel
from d2l_study.learning.metrics import probability
from d2l_study.learning.prediction import CHUNK, Compute, Normalise

SCORES = "scores.parquet"


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


def label_instances(stored: StoredModel, patches: np.ndarray, compute: Compute | None = None) -> Labels:
    """The labels of patches, (n, C, H, W) uint8; a few hundred at a time go through the network.

    `UserError` if they are not of the model's shape and type.
    """
    compute = compute or Compute()
    shape = stored.model.shape
    if patches.shape[1:] != shape or patches.dtype != np.uint8:
        wanted = f"(n, {', '.join(str(n) for n in shape)})"
        raise UserError(f"patches of {patches.dtype} with dimensions {patches.shape}; expected uint8 with {wanted}")
    mean, std = (torch.tensor(v, device=compute.device).view(-1, 1, 1) for v in (stored.card.mean, stored.card.std))
    normalise = Normalise(mean, std)
    params = {name: value.to(compute.device) for name, value in stored.params.items()}
    chunks = [np.empty(0, np.float32)]
    with torch.no_grad():
        for first in range(0, len(patches), CHUNK):
            with compute.autocast():
                terms = stored.model.terms(params, normalise(patches[first : first + CHUNK]))
            chunks.append(terms.logit.cpu().numpy())
    logit = np.concatenate(chunks)
    threshold = stored.card.instance_threshold
    return Labels(logit, probability(logit), None if threshold is None else logit > threshold)


def label_inputs(
    stored: StoredModel, inputs: Sequence[Input], out: str | Path, compute: Compute | None = None
) -> Summary:
    """Label everything that `inputs.open_inputs` found and write `out/scores.parquet`, in parts of bounded memory.

    Columns: source, index (the position in the source), logit, score, predicted (1, 0, or null without a threshold);
    the file's metadata say which model it was. The file appears whole or not at all; an older one is replaced.
    `UserError` if the folder cannot be written or an input turns out to be damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    card = stored.card
    origin = {
        "config_id": card.config_id, "replicate": card.replicate, "stage": card.stage, "study": card.study,
        "instance_threshold": card.instance_threshold,
    }  # fmt: skip
    schema = pa.schema(
        [("source", pa.string()), ("index", pa.int64()), ("logit", pa.float32()), ("score", pa.float64()),
         ("predicted", pa.int8())],
        metadata={"d2l_study.label": json.dumps(origin)},
    )  # fmt: skip
    path = Path(out).expanduser() / SCORES
    temporary = path.with_name(f"{SCORES}.{uuid.uuid4().hex[:8]}.part")
    count = positive = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for part in read_parts(inputs, stored.model.shape):
                labels = label_instances(stored, part.patches, compute)
                called = labels.predicted
                predicted = pa.nulls(len(labels.logit), pa.int8()) if called is None else called.astype(np.int8)
                columns = [part.sources, part.index, labels.logit, labels.score, predicted]
                writer.write_table(pa.Table.from_arrays(
                    [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
                ))  # fmt: skip
                count += len(labels.logit)
                positive += 0 if called is None else int(called.sum())
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"--out {path.parent}: cannot write {SCORES} there: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return Summary(path, count, None if card.instance_threshold is None else positive)
