"""The artifacts and curves of a configuration's page, made from the files of its runs.

An artifact is a function. It reads a file or draws a picture when it is written to MLflow, so that waiting costs no
memory.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.run_files import CURVE, PREDICTIONS, SCORE_MAP_REPLICATE
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.map_pictures import content_here, images_allowed, map_pictures
from d2l_study.study.mlflow.page import Report
from d2l_study.study.mlflow.roc_picture import roc_picture
from d2l_study.study.space.keys import WITH_SCORE_MAPS

if TYPE_CHECKING:
    import pandas

ReadConfig = Callable[[StudyFolder, str], Mapping[str, Any]]
"""(study, config_id) -> what the id stands for: stage, sections, seeds; empty if it is lost."""


def artifacts_of(
    folder: StudyFolder, config_id: str, rows: Sequence[Mapping[str, Any]], read_config: ReadConfig
) -> dict[str, Callable[[], bytes]]:
    """Name -> a function that reads or draws it, of the artifacts of a configuration's page.

    They are the resolved configuration (`config.yaml`); where predictions are kept, `roc.png`, `bag_predictions.csv`
    and, of a student, the test instances that it and its teacher rank highest and lowest (`rankings.png`); of tissue,
    maps of some test images (`overlays/1.png` …). Pictures of instances or images are left out where the study's
    `log_images` says so.

    read_config: reads what an id stands for, and makes it again if it is lost; that takes more than the ledger.
    """
    artifacts: dict[str, Callable[[], bytes]] = {"config.yaml": partial(_config_yaml, folder, config_id, read_config)}
    done = _done(rows)
    there = folder.storage.map(lambda r: _has(folder, config_id, r, PREDICTIONS), done)
    kept = [r for r, has in zip(done, there, strict=True) if has]
    stage = str(rows[0]["stage"]) if rows else ""
    pictures = bool(_done(rows)) and images_allowed(
        folder.resolved().get("space", {}), read_config(folder, config_id).get("sections", {}).get("data", {})
    )
    teacher = str(rows[0]["teacher_id"]).split(",")[0] if stage == "student" else None
    if pictures and stage in WITH_SCORE_MAPS:
        artifacts |= map_pictures(folder, config_id, teacher, SCORE_MAP_REPLICATE)
    if kept and pictures and teacher is not None:
        artifacts["rankings.png"] = partial(_rankings, folder, config_id, teacher, kept[0])
    if kept and stage != "attention":  # attention scores instances only
        predictions = lru_cache(partial(_bag_predictions, folder, config_id, kept))  # both are written together
        artifacts["roc.png"] = partial(_roc_of, predictions, config_id)
        artifacts["bag_predictions.csv"] = partial(_predictions_csv, predictions)
    return artifacts


def stored_curves(folder: StudyFolder, config_id: str, rows: Sequence[Mapping[str, Any]]) -> list[Report]:
    """The curves of a configuration's finished replicates, read from the ledger, by ascending step."""
    steps: dict[int, dict[int, dict[str, float]]] = {}
    for replicate in _done(rows):
        if not _has(folder, config_id, replicate, CURVE):
            continue
        for point in json.loads(folder.read_file(config_id, replicate, CURVE)):
            values = {k: float(v) for k, v in point.items() if isinstance(v, Real)}
            steps.setdefault(int(point["step"]), {})[replicate] = values
    return sorted(steps.items(), key=lambda item: item[0])


def _done(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    return [int(row["replicate"]) for row in rows if row["status"] == "done"]


def _has(folder: StudyFolder, config_id: str, replicate: int, name: str) -> bool:
    record = folder.ledger.read(config_id, replicate, folder.fresh_of)
    return record is not None and name in record["files"]


def _config_yaml(folder: StudyFolder, config_id: str, read_config: ReadConfig) -> bytes:
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)  # the compiled one is ten times as fast
    return yaml.dump(dict(read_config(folder, config_id)), Dumper=dumper, sort_keys=False, allow_unicode=True).encode()


def _bag_predictions(folder: StudyFolder, config_id: str, replicates: Sequence[int]) -> pandas.DataFrame:
    import pandas as pd

    frames = []
    for replicate in replicates:
        frame = pd.read_parquet(io.BytesIO(folder.read_file(config_id, replicate, PREDICTIONS)))
        frames.append(frame[frame["level"] == "bag"].assign(replicate=replicate))
    return pd.concat(frames)[["replicate", "split", "bag_index", "label", "logit"]]


def _predictions_csv(predictions: Callable[[], pandas.DataFrame]) -> bytes:
    """The predictions as CSV; nine digits hold a float32 exactly."""
    frame = predictions()
    return frame.to_csv(index=False, float_format="%.9g").encode()


def _roc_of(predictions: Callable[[], pandas.DataFrame], config_id: str) -> bytes:
    frame = predictions()
    frame = frame[(frame["split"] == "test") & frame["label"].notna()]
    groups = {int(r): (g["label"].to_numpy(int), g["logit"].to_numpy(float)) for r, g in frame.groupby("replicate")}
    return roc_picture(groups, f"test bags, trial {trial_id(config_id)}")


def _rankings(folder: StudyFolder, config_id: str, teacher: str, replicate: int) -> bytes:
    import pandas as pd

    from d2l_study.data import DATASETS
    from d2l_study.inference.pictures import ranking_picture

    logits, labels, index = {}, np.empty(0, int), np.empty(0, int)
    for name, config in (("teacher", teacher), ("student", config_id)):
        frame = pd.read_parquet(io.BytesIO(folder.read_file(config, replicate, PREDICTIONS)))
        frame = frame[(frame["split"] == "test") & (frame["level"] == "instance")]
        logits[name] = frame["logit"].to_numpy(float)
        labels, index = frame["label"].fillna(-1).to_numpy(int), frame["index"].to_numpy(int)
    data = content_here(folder, config_id)["sections"]["data"]
    pool = DATASETS[data["dataset"]](**data).load_pool()
    return ranking_picture(pool.instances[index], logits, labels, mistakes=True,
                           title=f"test instances of replicate {replicate}, trial {trial_id(config_id)}")  # fmt: skip
