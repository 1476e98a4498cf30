"""What the MLflow page of one configuration shows, made from the rows and files of the ledger.

Names, final metrics, status and cause are functions of the rows alone, so a live study and a later `sync`
show the same. Pictures and predictions are made only when they are written.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from d2l_study.credentials import masked
from d2l_study.errors import counted
from d2l_study.options import value_text
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.run_files import CURVE, PREDICTIONS, SCORE_MAP_REPLICATE
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.map_pictures import images_allowed, map_pictures
from d2l_study.study.mlflow.store import ARMS, LABELS, LEFT, REPLICATES, TEACHER, VARIED
from d2l_study.study.space.keys import WITH_SCORE_MAPS

if TYPE_CHECKING:
    import pandas

COUNTERS = frozenset({"replicate", "repeat", "fold", "fold_count", "seed", "generation", "threads"})
SHORT = {
    "num_bags": "n", "mean_bag_size": "K", "lambda_adv": "λ_adv", "lambda_noise": "λ_noise", "lambda_ent": "λ_ent",
    "epsilon": "ε", "learning_rate": "lr",
}  # fmt: skip
BEST = "best_val_bag_auc"
PAGE_VERSION = 2
"""Raised when pages show something new, so that `sync` writes the old ones again."""


def run_name(method: str, stage: str, params: Mapping[str, Any], varied: Sequence[str] = ()) -> str:
    """For example `vat n=50 K=10 λ_adv=1`: the arm, the two main axes, then what else varies and is not off."""
    keys = ["num_bags", "mean_bag_size", *(k for k in varied if k not in ("num_bags", "mean_bag_size"))]
    parts = [method] if stage == "teacher" or method.startswith(stage) else [stage, method]
    for key in keys:
        value = params.get(key)
        if value is None or (key.startswith("lambda_") and value == 0):
            continue
        parts.append(f"{SHORT.get(key, key)}={value_text(value)}")
    return " ".join(parts)


def final_metrics(rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> dict[str, float]:
    """Of every numeric outcome of the finished replicates: `bag_auc` (mean), `bag_auc_std` (n − 1; from two
    values on) and `bag_auc/r003`. A replicate whose value is not finite is left out of mean and deviation."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["status"] != "done":
            continue
        for key, value in row.items():
            if isinstance(value, Real) and not isinstance(value, bool) and key not in COUNTERS and key not in params:
                found.setdefault(key, {})[int(row["replicate"])] = float(value)
    metrics: dict[str, float] = {}
    for key, values in sorted(found.items()):
        finite = [v for v in values.values() if math.isfinite(v)]
        metrics[key] = float(np.mean(finite)) if finite else math.nan
        if len(finite) > 1:
            metrics[f"{key}_std"] = float(np.std(finite, ddof=1))
        metrics |= {f"{key}/r{replicate:03d}": value for replicate, value in sorted(values.items())}
    return metrics


def outcome(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str, str | None]:
    """MLflow's status, the count of replicates ("4 of 5") and the cause of a failure.

    FAILED if any replicate failed, KILLED if any is missing or was pruned, FINISHED if all are done.
    """
    states = [row["status"] for row in rows]
    failed = [row for row in rows if row["status"] == "failed"]
    cause = None
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        cause = f"r{int(first['replicate']):03d}: {first.get('cause') or 'no cause recorded'}{more}"
    status = "FAILED" if failed else "FINISHED" if all(s == "done" for s in states) else "KILLED"
    return status, f"{states.count('done')} of {len(states)}", cause


def study_tags(rows: Sequence[Mapping[str, Any]], left: int | None = None) -> dict[str, str]:
    """What a study's own run says of all its rows: how many are done, and how many are left to run (`left`, where a
    search has not asked for all yet)."""
    states = [row["status"] for row in rows]
    left = states.count("missing") if left is None else left
    return {REPLICATES: f"{states.count('done')} of {len(rows)}", LEFT: counted(left, "run") if left else ""}


def study_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The best configuration's mean validation AUC of bags, of each arm (`best_val_bag_auc/ARM`) and of all. What test
    data say is in the configurations' runs: nothing is chosen by it."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        value = row.get("val_bag_auc")
        if row["status"] == "done" and isinstance(value, Real) and math.isfinite(value):
            found.setdefault((str(row["method"]), str(row["config_id"])), []).append(float(value))
    metrics: dict[str, float] = {}
    for (arm, _), values in found.items():
        mean = math.fsum(values) / len(values)
        for name in (BEST, f"{BEST}/{arm}"):
            metrics[name] = max(metrics.get(name, mean), mean)
    return metrics


ROW_FACTS = (
    "replicate",
    "status",
    "repeat",
    "fold",
    "fold_count",
    "partition",
    "seed",
    "generation",
    "teacher_method",
    "student_method",
    "oracle",
)


def row_facts(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows say besides params and metrics, as JSON, so that MLflow alone gives the rows back: each fact once
    if it is the same in all rows, else a list by replicate; a fact that no row has is left out."""
    facts: dict[str, Any] = {}
    for name in ROW_FACTS:
        values = [row.get(name) for row in rows]
        if any(value is not None for value in values):
            facts[name] = values[0] if name != "replicate" and len(set(values)) == 1 else values
    return json.dumps(facts, separators=(",", ":"), default=str)


def seal(rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any], artifacts: Iterable[str] = ()) -> str:
    """A short hash of what the page of these rows shows; of the artifacts' names those of overlays count, which a
    study may allow later."""
    content: list[Any] = [PAGE_VERSION, final_metrics(rows, params), outcome(rows)]
    if overlays := sorted(name for name in artifacts if name.startswith("overlays/")):
        content.append(overlays)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StudyPage:
    """What a study's parent run shows; its tags are on the children too."""

    tags: dict[str, str]
    params: dict[str, Any]
    artifacts: dict[str, bytes]
    varied: list[str]
    description: str


def study_page(folder: StudyFolder) -> StudyPage:
    """The parent run of a study, from its folder alone: where it comes from, the space as written and resolved."""
    resolved, plan = folder.resolved(), folder.plan()
    space, origin = resolved.get("space", {}), resolved.get("provenance", {})
    tags = {
        "d2l.space": str(space.get("name", "")), "d2l.base_seed": str(space.get("base_seed", "")),
        "d2l.data_checksum": ", ".join(sorted({str(e.get("data_checksum", "")) for e in plan})),
        ARMS: json.dumps([*dict.fromkeys(e["method"] for e in plan)], ensure_ascii=False, separators=(",", ":")),
        "d2l.code_version": str(origin.get("code_version", "")), "d2l.commit": origin.get("commit") or "",
        "d2l.dirty": str(origin.get("dirty", "")).lower(),
        "d2l.local_difference": (origin.get("local_difference") or {}).get("file", ""),
    }  # fmt: skip
    if labels := space.get("labels"):
        tags[LABELS] = json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
    params = {
        "space": space.get("name", ""), "replicates": max((len(e["replicates"]) for e in plan), default=0),
        "configurations": len({e["config_id"] for e in plan}), "base_seed": space.get("base_seed", ""),
    }  # fmt: skip
    varied = list(dict.fromkeys(key for e in plan for key in e["varied"]))
    return StudyPage(tags, params, space_files(folder), varied, str(space.get("description", "")))


def space_files(folder: StudyFolder) -> dict[str, bytes]:
    """The space as written and as resolved, as far as they are there; what is secret in them masked."""
    found = {}
    for name in ("space.yaml", "resolved.json"):
        with contextlib.suppress(FileNotFoundError):
            text = folder.storage.read(f"{folder.key}/{name}").decode("utf-8", "surrogateescape")
            found[name] = masked(text).encode("utf-8", "surrogateescape")
    return found


def origin_tags(entry: Mapping[str, Any]) -> dict[str, str]:
    """The tags that say which keys vary in the arm of a plan's entry, and from which teachers (their config_ids) it
    learns."""
    return {VARIED: ",".join(entry["varied"])} | ({TEACHER: entry["teacher_id"]} if entry.get("teacher_id") else {})


# ---- files
ReadConfig = Callable[[StudyFolder, str], Mapping[str, Any]]
"""(study, config_id) -> what the id stands for: stage, sections, seeds; empty if nobody knows."""


def artifacts_of(
    folder: StudyFolder, config_id: str, rows: Sequence[Mapping[str, Any]], read_config: ReadConfig
) -> dict[str, Callable[[], bytes]]:
    """The artifacts of a configuration's page, each read or drawn when called: the resolved configuration
    (`config.yaml`) and, where predictions are kept, `roc.png`, `bag_predictions.csv` and, of a student, the test
    instances that it and its teacher rank highest and lowest (`rankings.png`); of tissue, maps of some test images
    (`overlays/1.png` …). What shows instances or images is left out where the study's `log_images` says so.

    read_config: reads what the id stands for, and makes it again if it is lost, which takes more than the ledger."""
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


def reports_of(
    folder: StudyFolder, config_id: str, rows: Sequence[Mapping[str, Any]]
) -> list[tuple[int, dict[int, dict[str, float]]]]:
    """The curves of a configuration's finished replicates as (step, replicate -> values), steps ascending."""
    steps: dict[int, dict[int, dict[str, float]]] = {}
    for replicate in _done(rows):
        if not _has(folder, config_id, replicate, CURVE):
            continue
        for point in json.loads(folder.read_file(config_id, replicate, CURVE)):
            values = {k: float(v) for k, v in point.items() if isinstance(v, Real)}
            steps.setdefault(int(point["step"]), {})[replicate] = values
    return sorted(steps.items())


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
    """Nine digits hold a float32 exactly."""
    frame = predictions()
    return frame.to_csv(index=False, float_format="%.9g").encode()


def _roc_of(predictions: Callable[[], pandas.DataFrame], config_id: str) -> bytes:
    frame = predictions()
    frame = frame[(frame["split"] == "test") & frame["label"].notna()]
    groups = {int(r): (g["label"].to_numpy(int), g["logit"].to_numpy(float)) for r, g in frame.groupby("replicate")}
    return roc_picture(groups, f"test bags, trial {trial_id(config_id)}")


def _rankings(folder: StudyFolder, config_id: str, teacher: str, replicate: int) -> bytes:
    import numpy as np
    import pandas as pd

    from d2l_study.data import DATASETS
    from d2l_study.inference.pictures import ranking_picture

    logits, labels, index = {}, np.empty(0, int), np.empty(0, int)
    for name, config in (("teacher", teacher), ("student", config_id)):
        frame = pd.read_parquet(io.BytesIO(folder.read_file(config, replicate, PREDICTIONS)))
        frame = frame[(frame["split"] == "test") & (frame["level"] == "instance")]
        logits[name] = frame["logit"].to_numpy(float)
        labels, index = frame["label"].fillna(-1).to_numpy(int), frame["index"].to_numpy(int)
    data = folder.ledger.read_config(config_id)["sections"]["data"]
    pool = DATASETS[data["dataset"]](**data).load_pool()
    return ranking_picture(pool.instances[index], logits, labels, mistakes=True,
                           title=f"test instances of replicate {replicate}, trial {trial_id(config_id)}")  # fmt: skip


# ---- the picture
def roc_curve(labels: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, both ascending from 0 to 1, one point per distinct logit (ties are one step).

    labels: (bags,) of 0 and 1, both present; logits: (bags,), finite.
    """
    order = np.argsort(-logits, kind="stable")
    hit = labels[order] == 1
    last = np.append(np.diff(logits[order]) != 0, True)
    true, false = np.cumsum(hit)[last], np.cumsum(~hit)[last]
    return np.append(0.0, false / false[-1]), np.append(0.0, true / true[-1])


class RocAxes:
    """The axes of the picture, drawn once: they take ten times as long as the curves, and a study has many pictures."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure  # not pyplot, whose state is not for threads

        self.figure = Figure(figsize=(4.6, 4.6), dpi=110)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0.13, 0.12, 0.82, 0.80))
        self.axes.set_aspect("equal")
        self.axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        self.axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        self.canvas.draw()
        self.empty = self.canvas.copy_from_bbox(self.figure.bbox)

    def picture(self, artists: Sequence[Any]) -> bytes:
        """A PNG of the axes with these artists, which are theirs; it forgets them then."""
        from PIL import Image

        self.canvas.restore_region(self.empty)
        for artist in artists:
            self.axes.draw_artist(artist)
        out = io.BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB").save(out, format="png")
        for artist in artists:
            artist.remove()
        return out.getvalue()


_roc_axes = lru_cache(maxsize=1)(RocAxes)
_drawing = threading.Lock()


def roc_picture(replicates: Mapping[int, tuple[np.ndarray, np.ndarray]], title: str) -> bytes:
    """A PNG: the ROC curve of each replicate, thin, and their mean at equal false positive rates.

    replicates: number -> (labels (bags,), logits (bags,)); one with a single class or a NaN has no curve.
    """
    grid = np.linspace(0, 1, 201)
    curves, areas = [], []
    artists: list[Any] = []
    with _drawing:
        frame = _roc_axes()
        axes = frame.axes
        for labels, logits in replicates.values():
            if len(np.unique(labels)) < 2 or not np.isfinite(logits).all():
                continue
            false, true = roc_curve(labels, logits)
            artists += axes.plot(false, true, color="tab:blue", alpha=0.35, linewidth=0.8)
            curves.append(np.interp(grid, false, true))
            areas.append(float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)))
        artists.append(axes.text(0.5, 1.02, title, transform=axes.transAxes, ha="center", va="bottom", fontsize=12))
        if curves:
            count = f"{len(curves)} replicates" if len(curves) > 1 else "1 replicate"
            mean = np.append(0.0, np.mean(curves, axis=0))
            label = f"mean of {count}, AUC {np.mean(areas):.3f}"
            artists += axes.plot(np.append(0.0, grid), mean, color="tab:blue", linewidth=2, label=label)
            artists.append(axes.legend(handles=artists[-1:], loc="lower right", frameon=False))
        else:
            artists.append(axes.text(0.5, 0.5, "no replicate has both classes", ha="center"))
        return frame.picture(artists)
