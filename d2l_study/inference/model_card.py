"""The page about a model for people, `README.md` of its folder (Mitchell et al., Model Cards, 2019).

It says what the model is, what it was trained on and how well it does, what it is not for, and how to use it. The block
at its top is YAML as model hubs read it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.model_folder import CARD, MODEL, MetricRecord, ModelRecord
from d2l_study.learning.metrics import probability

SHOWN_METRICS = {
    "bag_auc": "bag AUC", "bag_ap": "bag average precision", "bag_accuracy": "bag accuracy at 0.5",
    "bag_nll": "bag log loss", "bag_brier": "bag Brier score", "instance_auc": "instance AUC",
    "instance_auc_within": "instance AUC within images", "instance_ap": "instance average precision",
    "instance_f1_tuned": "instance F1 at the threshold", "val_bag_auc": "validation bag AUC",
}  # fmt: skip
NO_LICENCE = "not stated"
PACKAGE = "d2l-study"

_STAGES = {
    "teacher": "A bag classifier (attention multiple-instance learning)",
    "part_teacher": "A bag classifier that was trained on a part of the training bags only, to label the others for a "
    "student",
    "student": "An instance classifier, distilled from bag classifiers; a bag's score is pooled from its instances'",
    "matched": "A bag classifier for reference: a teacher trained with a student's augmentation and noise for as "
    "long as teacher and student together",
    "no_soft_labels": "An instance classifier for reference, trained from a teacher's weights without its soft labels",
    "no_teacher": "An instance classifier for reference, trained without a teacher on instances of negative bags",
    "bag_label": "An instance classifier for reference, trained on instances labelled like their bags",
    "oracle": "An instance classifier for reference, trained on the true instance labels",
}


def model_card(
    stored: StoredModel, record: ModelRecord, name: str, requirements: Mapping[str, str], licence: str = NO_LICENCE,
    description: str = "",
) -> str:  # fmt: skip
    """The page as Markdown. name: of the folder; requirements: package -> version; description: of the study."""
    card = stored.card
    parts = [
        _head(card, licence),
        f"# {name}",
        f"{_STAGES[card.stage]}. Method: Distill-to-Label (Thiagarajan, Kashyap, Karagyris, ICMLA 2019)."
        + (f"\n\nThe study `{card.study}`: {description}" if description else f"\n\nStudy: `{card.study}`."),
        "## What it takes and gives",
        _input_text(stored) + "\n\n" + _threshold_text(stored, record),
        "## Trained on",
        _training_text(stored, record),
        "## How well it does",
        _metrics_text(record),
        "## Limits",
        _limits_text(stored, record),
        "## Use",
        _use_text(stored, name, requirements),
        "## Licence",
        f"{licence}. The licence of the training data holds beside it." if licence != NO_LICENCE else
        "Not stated (`d2l export --licence` states it). The licence of the training data holds in any case.",
        "## Settings",
        _settings_text(card),
        "## Provenance",
        _facts_text(record, card),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _head(card: ModelCard, licence: str) -> str:
    dataset = card.sections.get("data", {}).get("dataset", "")
    lines = ["---", f"license: {_yaml(licence)}", "library_name: d2l-study", "tags:",
             "- multiple-instance-learning", f"- {card.stage}"]  # fmt: skip
    return "\n".join([*lines, *([f"datasets:\n- {_yaml(dataset)}"] if dataset else []), "---"])


def _yaml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _input_text(stored: StoredModel) -> str:
    shape, card = stored.model.shape, stored.card
    data = card.sections.get("data", {})
    if len(shape) == 1:
        what = f"Feature vectors of {shape[0]:,} dimensions"
        what += f" of the encoder `{card.encoder}`" if card.encoder else "; which encoder made them is not known"
        what += f", from tiles of {card.tiles}" if card.tiles else ""
    else:
        channels, height, width = shape
        kind = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
        what = f"{kind[0].upper()}{kind[1:]} patches of {width}×{height} pixels, 8 bits"
        what += f", at {data['mpp']:g} µm per pixel" if data.get("mpp") else "; their resolution in µm is not known"
    return (
        f"Input: {what}. The model normalises them itself.\n\nOutput: for each instance and for each bag a logit, and "
        "a score, its probability in [0, 1]. An instance's logit is that of the bag which holds it alone."
    )


def _threshold_text(stored: StoredModel, record: ModelRecord) -> str:
    lines = []
    for what, value, how in (
        ("Instances", stored.card.instance_threshold, "set on the validation bags, without instance labels"),
        ("Bags", record.bag_threshold, "set on the validation bags, for the best balanced accuracy"),
    ):
        if value is None:
            lines.append(f"- {what}: no threshold could be set; the score stands all the same.")
        else:
            lines.append(f"- {what} are called positive above logit {value:.4g} (score {_score(value):.3f}), {how}.")
    if record.temperature is not None:
        lines.append(f"- Temperature of the bag logits, fitted on the validation bags: {record.temperature:.3g}.")
    return "\n".join(lines)


def _score(logit: float) -> float:
    import numpy as np

    return float(probability(np.array(logit)))


def _training_text(stored: StoredModel, record: ModelRecord) -> str:
    card, counts = stored.card, record.counts
    data = card.sections.get("data", {})
    labels = "true labels of instances" if card.stage == "oracle" else "labels of bags only"
    lines = [f"- Data set `{data.get('dataset', 'not known')}`, {labels}."]
    words = {"train": "for training", "val": "for validation", "test": "for testing"}
    if sizes := [f"{_bags(counts, part)} {word}" for part, word in words.items() if _bags(counts, part)]:
        lines.append(f"- Bags: {', '.join(sizes)}.")
    if "labels_used" in counts:
        lines.append(f"- Bag labels used, training and validation: {counts['labels_used']:,}.")
    fold = record.facts.get("fold")
    if fold is not None:
        facts = record.facts
        lines.append(f"- Split: fold {fold} of {facts.get('fold_count', '?')} (from 0), repeat {facts.get('repeat', 0)}"
                     f", {facts.get('partition', '')}; no patient is in two parts.")  # fmt: skip
    if record.trained_on is not None:
        lines.append(f"- `{CARD}` marks the {len(record.trained_on.part):,} bags that it has seen, as digests, so that "
                     "`d2l evaluate` refuses them in another cohort.")  # fmt: skip
    if record.choice:
        lines.append(f"- This replicate (number {card.replicate}) was taken: {record.choice}.")
    return "\n".join(lines)


def _bags(counts: Mapping[str, int], part: str) -> str:
    names = {"train": ("train_bags", "num_bags"), "val": ("val_bags",), "test": ("test_bags",)}[part]
    found = next((counts[name] for name in names if name in counts), None)
    if found is None:
        return ""
    instances = counts.get(f"{part}_instances")
    return f"{found:,}" + (f" ({instances:,} instances)" if instances else "")


def _metrics_text(record: ModelRecord) -> str:
    shown = {name: record.metrics[name] for name in SHOWN_METRICS if name in record.metrics}
    if not shown:
        return "Not known here."
    count = max(metric.count for metric in shown.values())
    lines = [
        "On the test bags of its own data set, which neither trained nor selected anything. The first column is this "
        f"model alone, the second its configuration over {count} replicates or folds, with a 95 % interval where there "
        "are several.", "", "| metric | this model | mean over replicates |", "|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {SHOWN_METRICS[name]} | {metric.value:.3f} | {_mean_text(metric)} |" for name, metric in shown.items()
    ]
    lines += ["", "Another hospital's data are another question: `d2l evaluate` answers it."]
    return "\n".join(lines)


def _mean_text(metric: MetricRecord) -> str:
    if metric.count < 2:
        return "one replicate"
    if math.isnan(metric.upper - metric.lower) or metric.lower < -1e-9:
        return f"{metric.mean:.3f} (n = {metric.count}, too few or too alike for an interval)"
    return f"{metric.mean:.3f} [{metric.lower:.3f}, {metric.upper:.3f}] (n = {metric.count})"


def _limits_text(stored: StoredModel, record: ModelRecord) -> str:
    lines = [
        "- For research. It is no medical device, and decides nothing about a patient.",
        "- It knows data like its training data: stains, scanners, tissues and patients of other kinds may give scores "
        "that mean nothing. Look at them before you use them.",
    ]
    if stored.card.stage != "oracle":
        lines.append("- It was trained on labels of bags. What instances are was never taught; it was inferred.")
    if stored.card.stage in ("teacher", "student", "matched", "no_soft_labels", "no_teacher"):
        lines.append("- Scores of instances are ranked better than they are calibrated: a score of 0.7 is no share of "
                     "70 % where the share of positives is another one.")  # fmt: skip
    if record.trained_on is None:
        lines.append("- Which bags it has seen is not in its folder: whoever evaluates it must know.")
    return "\n".join(lines)


def _use_text(stored: StoredModel, name: str, requirements: Mapping[str, str]) -> str:
    vectors = len(stored.model.shape) == 1
    shape = ", ".join(map(str, stored.model.shape))
    packages = " ".join(f"{name}=={version}" for name, version in requirements.items() if name != PACKAGE)
    own = f"{PACKAGE}=={requirements[PACKAGE]}" if PACKAGE in requirements else PACKAGE
    data = "features/" if vectors else "images/"
    kind = "of a floating point type" if vectors else "uint8"
    return f"""\
```
pip install {packages}
pip install --no-deps {own}
```

In Python, with {"vectors" if vectors else "patches"} of dimensions (n, {shape}), {kind}:

```python
import d2l_study

model = d2l_study.load("{name}")
model.predict_bags([bag_1, bag_2])      # (2,) scores in [0, 1]
model.predict_instances(bag_1)          # (n,)
```

On the command line, which needs all of it (`pip install {own}`):

```
d2l predict --run {name} {data} --out scores.parquet
d2l evaluate --run {name} --data other_cohort.csv
```

`{MODEL}` holds the parameters (safetensors: nothing in it is executed), `{CARD}` everything that programs need to know.
Both are checked when they are loaded: a file that was altered is refused."""


def _settings_text(card: ModelCard) -> str:
    lines = ["| section | key | value |", "|---|---|---|"]
    for section, keys in card.sections.items():
        lines += [f"| {section} | {key} | {_cell(value)} |" for key, value in keys.items()]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _facts_text(record: ModelRecord, card: ModelCard) -> str:
    facts = {"study": card.study, "config_id": card.config_id, "replicate": str(card.replicate), **record.facts}
    return "\n".join(f"- {name}: `{value}`" for name, value in facts.items())
