"""torchmil's ABMIL, trained by torchmil's Trainer on the folds of an .npz data set; run by `torchmil_peer.py`.

    /path/to/other/env/bin/python benchmarks/torchmil_train.py musk1.npz --runs 10 --epochs 20

It runs in an environment of its own (`pip install torch torchmil`) and knows nothing of this package. One thread. Each
run is a test fold of the file (`test_fold`, (repeats, bags)); the next fold validates. Normalised by the training part.
Prints a JSON object per run: processor seconds of training (data ready before the clock starts, as in the peer's own
examples with tensors in memory), AUC and accuracy on the test bags of the best model by validation AUC.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
import torchmetrics
from tensordict import TensorDict
from torchmil.data import collate_fn
from torchmil.models import ABMIL
from torchmil.utils.trainer import Trainer


def area(label: np.ndarray, score: np.ndarray) -> float:
    """The AUC of the ROC, ties counted half."""
    positive, negative = score[label == 1], score[label == 0]
    return float(((positive[:, None] > negative).mean() + (positive[:, None] >= negative).mean()) / 2)


def one_run(data: dict[str, np.ndarray], run: int, epochs: int, width: int, gated: bool) -> dict[str, float]:
    folds = int(data["test_fold"].max()) + 1
    repeat, fold = divmod(run, folds)
    test_fold = data["test_fold"][repeat]
    parts = {"test": test_fold == fold, "val": test_fold == (fold + 1) % folds}
    parts["train"] = ~(parts["test"] | parts["val"])
    features, bag = data["features"].astype(np.float32), data["bag_index"]
    of_train = features[parts["train"][bag]]
    std = of_train.std(0)
    features = (features - of_train.mean(0)) / np.where(std > 1e-6, std, 1)
    sets = {
        name: [
            TensorDict({"X": torch.from_numpy(features[bag == b]), "Y": torch.tensor(float(data["bag_label"][b]))})
            for b in np.flatnonzero(mine)
        ]
        for name, mine in parts.items()
    }
    torch.manual_seed(run)
    loaders = {
        name: torch.utils.data.DataLoader(mine, batch_size=1, shuffle=name == "train", collate_fn=collate_fn)
        for name, mine in sets.items()
    }
    size = features.shape[1]
    extractor = torch.nn.Sequential(torch.nn.Linear(size, width), torch.nn.ReLU()) if width else torch.nn.Identity()
    model = ABMIL(in_shape=(size,), att_dim=128, gated=gated, feat_ext=extractor)
    trainer = Trainer(
        model, torch.optim.Adam(model.parameters(), lr=5e-4, weight_decay=1e-4),
        metrics_dict={"auroc": torchmetrics.AUROC(task="binary")}, obj_metric="auroc", device="cpu",
        disable_pbar=True, verbose=False,
    )  # fmt: skip
    begin = time.process_time()
    trainer.train(epochs, loaders["train"], loaders["val"])
    seconds = time.process_time() - begin
    best = trainer.get_best_model().eval()
    with torch.no_grad():
        score = np.array([best(item["X"][None]).item() for item in sets["test"]])
    label = data["bag_label"][parts["test"]]
    return {
        "run": run, "seconds": seconds, "auc": area(label, score), "accuracy": float(((score > 0) == label).mean()),
        "steps": epochs * len(sets["train"]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--first", type=int, default=0, help="the first run")
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=512, help="of the linear layer before the pooling; 0: none")
    parser.add_argument("--gated", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with np.load(options.file) as kept:
        data = dict(kept)
    for run in range(options.first, options.first + options.runs):
        print(json.dumps(one_run(data, run, options.epochs, options.width, options.gated)), flush=True)


if __name__ == "__main__":
    main()
