"""The scores of an evaluation as a table: the rows of `predict` (`inference.prediction_file`), with the columns `label`
(0 or 1; null of an instance whose truth is not known) and `model`. The metadata `d2l_study.evaluate` say in JSON which
models they were."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.pool import UNKNOWN
from d2l_study.inference.evaluated_scores import EvaluatedBags, ModelScores
from d2l_study.inference.prediction_file import PredictedBag, Thresholds, prediction_rows
from d2l_study.parquet_files import has_metadata, parquet_writer
from d2l_study.slides.score_files import BLOCK

SCORES = "scores.parquet"
METADATA = "d2l_study.evaluate"


def are_ours(path: Path) -> bool:
    """Whether a file holds scores of an evaluation."""
    return has_metadata(path, METADATA)


def write_scores(
    path: Path, models: Sequence[ModelScores], bags: EvaluatedBags, data: str, about: Mapping[str, Any]
) -> None:
    """Write the scores of all models. The file appears whole or not at all.

    data: the data as the user named them, the source of instances that have no files of their own; about: plain values
    for the file's metadata.
    """
    import pyarrow as pa

    sources = _sources(bags, data)
    schema: Any = None
    waiting: list[Any] = []
    with atomic_write(path) as part, ExitStack() as opened:
        writer: Any = None
        for model in models:
            for table in _tables(bags, model, sources):
                if writer is None:
                    schema = table.schema.with_metadata({METADATA: json.dumps(about)})
                    writer = opened.enter_context(parquet_writer(part, schema))
                waiting.append(table)
                if sum(len(one) for one in waiting) >= BLOCK:
                    writer.write_table(pa.concat_tables(waiting).cast(schema))
                    waiting.clear()
        if waiting:
            writer.write_table(pa.concat_tables(waiting).cast(schema))


def _tables(bags: EvaluatedBags, model: ModelScores, sources: tuple[list[str], np.ndarray]) -> Iterator[Any]:
    import pyarrow as pa

    names, source_of = sources
    thresholds = Thresholds(model.bag_threshold, model.instance_threshold)
    offsets = bags.bags.offsets
    xy = bags.pool.xy[bags.positions]
    for b, name in enumerate(bags.names):
        rows = slice(int(offsets[b]), int(offsets[b + 1]))
        used, of = np.unique(source_of[rows], return_inverse=True)
        bag = PredictedBag(name, tuple(names[i] for i in used), of, xy[rows], model.instance_logit[rows],
                           float(model.bag_logit[b]))  # fmt: skip
        table = prediction_rows(bag, thresholds)
        label = np.concatenate([bags.label[b : b + 1], bags.instance_label[rows]]).astype(np.int8)
        table = table.append_column("label", pa.array(label, mask=label == UNKNOWN))
        yield table.append_column("model", pa.repeat(model.name, len(label)))


def _sources(bags: EvaluatedBags, data: str) -> tuple[list[str], np.ndarray]:
    """Names of files, and (I,) which of them each instance comes from."""
    pool = bags.pool
    files = pool.files if isinstance(pool, FeatureCollection) else pool.images
    if not files:
        return [data], np.zeros(len(bags.positions), np.int64)
    return [str(file) for file in files], pool.image[bags.positions]
