"""Rows that make the instance table readable: what instance scores are worth without distillation, and at best.

`bag_label`: single-instance learning, every instance labelled like its bag. `oracle`: trained on the true instance
labels; marked in every result. Both are students of other soft labels: the same network, draws and steps.
`no_teacher`: the student without soft labels, from new weights, known negatives and bag labels.

Nothing is trained for three more, which read a trained teacher in another way. `attention`: its own attention is the
instance score. `pooled`: a bag's score is its highest instance score. `smoothed`: an instance's score is the mean over
its neighbours.

Two are trained elsewhere: `matched`, trained like teacher and student together, is a teacher (`matched_teacher`), and
`no_soft_labels`, from the teacher's weights, is a student (`StudentConfig.without_soft_labels`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np
import torch

from d2l_study.data.neighbours import neighbour_means
from d2l_study.data.pool import UNKNOWN, Bags, Replicate
from d2l_study.errors import UserError
from d2l_study.learning import metrics
from d2l_study.learning.evaluation import Metrics, evaluation_bags, evaluation_metrics
from d2l_study.learning.fit_checks import check_fit
from d2l_study.learning.instance_metrics import ranking_metrics, threshold_metrics
from d2l_study.learning.lockstep import Callbacks
from d2l_study.learning.prediction import Compute, Normalise, instance_terms, predict_bags
from d2l_study.learning.student import SoftLabels, fit_to_soft_labels
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.thresholds import label_free_threshold
from d2l_study.learning.training_result import FittedStudent
from d2l_study.models import MilModel, Params
from d2l_study.models.pooling import attention_weights

REFERENCES = ("pooled", "smoothed", "no_teacher", "bag_label", "attention", "oracle")


def fit_reference(
    kind: str,
    config: StudentConfig,
    replicates: Sequence[Replicate],
    *,
    compute: Compute | None = None,
    **callbacks: Unpack[Callbacks],
) -> list[FittedStudent]:
    """Train the instance classifier of `config` on bag labels (`bag_label`), on true instance labels (`oracle`), or
    without soft labels (`no_teacher`).

    Selection is the student's. The distillation loss of bag_label and oracle is the cross-entropy with the same labels
    on validation instances; without a teacher there is none. An oracle leaves out training and validation instances of
    unknown label; `UserError` if it has none of a class left, or where the configuration does not go with the instances
    or bags (`fit_checks`).
    """
    if kind not in ("bag_label", "oracle", "no_teacher"):
        raise UserError(f"reference: {kind!r} is not trained; expected bag_label, oracle or no_teacher")
    check_fit(config, replicates)
    if kind == "no_teacher":
        none = [SoftLabels(None, None)] * len(replicates)
        return fit_to_soft_labels(config.no_teacher(), replicates, none, stage=kind, compute=compute, **callbacks)
    oracle = kind == "oracle"
    learned = [labelled_replicate(replicate) for replicate in replicates] if oracle else replicates
    labels = [SoftLabels(_labels(learn.train, oracle), _labels(learn.val, oracle)) for learn in learned]
    return fit_to_soft_labels(
        config.without_teacher(), learned, labels, stage=kind, oracle=oracle, compute=compute, evaluated=replicates,
        **callbacks,
    )  # fmt: skip


def labelled_replicate(replicate: Replicate) -> Replicate:
    """What an oracle learns from: the training and validation instances whose label is known; bags without any go."""
    parts: dict[str, Any] = {}
    for name, bags in (("train", replicate.train), ("val", replicate.val)):
        known = bags.instance_label != UNKNOWN
        if known.all():
            continue
        sizes = np.bincount(bags.bag_of[known], minlength=len(bags))
        kept = dataclasses.replace(
            bags, offsets=np.concatenate([[0], np.cumsum(sizes)]), instance=bags.instance[known],
            instance_label=bags.instance_label[known],
        ).subset(np.flatnonzero(sizes))  # fmt: skip
        if (name == "train" and len(np.unique(kept.instance_label)) < 2) or not len(kept):
            raise UserError(
                f"reference: oracle needs instances of known label of both classes; the {name} bags of replicate "
                f"{replicate.number} lack them"
            )
        parts[name] = kept
    return dataclasses.replace(replicate, **parts) if parts else replicate


def _labels(bags: Bags, oracle: bool) -> np.ndarray:
    found = bags.instance_label if oracle else np.repeat(bags.label, bags.sizes)
    return found.astype(np.float32)


def attention_reference(
    model: MilModel, params: Params, replicate: Replicate, compute: Compute | None = None
) -> FittedStudent:
    """The attention of a trained teacher as instance score; `UserError` if its pooling has none, or it has no
    parameters since it failed.

    Two scopes, since the attention weight of a bag of one is always 1:
    - `instance_auc`, `instance_ap`, `instance_*_tuned`: the unnormalised attention e_j (before the softmax) on the
      test instances, the same ones on which teacher and student are scored; it needs no bag.
    - `bagged_*`: instances where they stand in the test bags, each occurrence once: `bagged_auc_weight` of the
      within-bag weights a_j, pooled over bags; `bagged_auc_raw` of e_j; `bagged_auc_logit` of the teacher's instance
      logits, for comparison; `bagged_auc_within`, the mean over test bags with both classes of the AUC within the
      bag, where a_j and e_j rank alike.
    Attention says what matters for the bag's logit, not in which direction: an AUC below 1/2 is possible, and is not
    turned round. There is no probability in it, so no figure at 0.5 and no likelihood.
    """
    if model.pooling not in ("attention", "gated_attention"):
        raise UserError(f"reference: attention needs pooling attention or gated_attention; found {model.pooling}")
    _check_trained(params, replicate)
    begin = time.perf_counter()
    compute = compute or Compute()
    sets = (replicate.val, replicate.test, replicate.test_instances)
    distinct, inverse = np.unique(np.concatenate([bags.instance for bags in sets]), return_inverse=True)
    normalise = Normalise.of(replicate, compute)
    terms = instance_terms(model, params, replicate.pool, distinct, normalise, compute)
    assert terms.attention is not None
    raw, logit = terms.attention.cpu().numpy(), terms.logit.cpu().numpy()
    val, test, single = np.split(inverse, np.cumsum([len(bags.instance) for bags in sets])[:-1])
    found: Metrics = {
        **ranking_metrics(replicate, raw[single]),
        **threshold_metrics(replicate, raw[single], label_free_threshold(raw[val], replicate.val)),
        **_in_bags(replicate.test, raw[test], logit[test]),
    }
    return FittedStudent(
        replicate.number, "done", None, params, 0, 0, 0.0, time.perf_counter() - begin, [],
        found, {("test", "instance"): raw[single]}, "attention",
    )  # fmt: skip


def pooled_reference(
    model: MilModel, params: Params, replicate: Replicate, compute: Compute | None = None
) -> FittedStudent:
    """A trained teacher whose bags are read by their highest instance logit, as a student's are. Instances stay.
    `UserError` if it has no parameters since it failed."""
    pooled = dataclasses.replace(model, pooling="instance_max")
    begin = time.perf_counter()
    return _reading("pooled", params, replicate, _evaluation_logits(pooled, params, replicate, compute), begin)


def smoothed_reference(
    model: MilModel, params: Params, replicate: Replicate, neighbours: int, compute: Compute | None = None
) -> FittedStudent:
    """A trained teacher whose instance logits are averaged over `neighbours` neighbours in the image, and their own
    (`neighbour_means`). Bags stay. `UserError` if instances have no places, or it has no parameters since it failed."""
    begin = time.perf_counter()
    val_bag, test_bag, test_instance, val_instance = _evaluation_logits(model, params, replicate, compute)
    predicted = [
        val_bag,
        test_bag,
        neighbour_means(test_instance, replicate.pool, replicate.test, neighbours),
        neighbour_means(val_instance, replicate.pool, replicate.val, neighbours),
    ]
    return _reading("smoothed", params, replicate, predicted, begin)


def _evaluation_logits(
    model: MilModel, params: Params, replicate: Replicate, compute: Compute | None
) -> list[np.ndarray]:
    _check_trained(params, replicate)
    compute = compute or Compute()
    normalise = Normalise.of(replicate, compute)
    return predict_bags(model, params, replicate.pool, evaluation_bags(replicate), normalise, compute)


def _check_trained(params: Params, replicate: Replicate) -> None:
    if not params:
        raise UserError(f"replicate {replicate.number}: its teacher has no parameters (it failed), so it has no scores")


def _reading(
    stage: str, params: Params, replicate: Replicate, predicted: Sequence[np.ndarray], begin: float
) -> FittedStudent:
    """The result of reading a teacher. predicted: the logits of its `evaluation_bags`; begin: when that began."""
    found = evaluation_metrics(replicate, predicted)
    status, cause = ("done", None) if found is not None else ("failed", "its teacher's logits are not finite")
    values, logits = found or ({}, {})
    return FittedStudent(
        replicate.number, status, cause, params, 0, 0, 0.0, time.perf_counter() - begin, [], values, logits, stage
    )


def _in_bags(bags: Bags, raw: np.ndarray, logit: np.ndarray) -> Metrics:
    bag_of = np.repeat(np.arange(len(bags)), bags.sizes)
    weight = attention_weights(torch.from_numpy(raw), torch.from_numpy(bag_of), len(bags)).numpy()
    truth, known = bags.instance_label, bags.instance_label != UNKNOWN
    within = [
        metrics.auc(truth[part][known[part]], raw[part][known[part]])
        for part in (slice(a, b) for a, b in zip(bags.offsets[:-1], bags.offsets[1:], strict=True))
        if len(np.unique(truth[part][known[part]])) == 2
    ]
    return {
        "bagged_auc_weight": metrics.auc(truth[known], weight[known]),
        "bagged_auc_raw": metrics.auc(truth[known], raw[known]),
        "bagged_auc_logit": metrics.auc(truth[known], logit[known]),
        "bagged_auc_within": float(np.mean(within)) if within else math.nan,
    }
