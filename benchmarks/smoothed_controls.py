"""What averaging scores over neighbours at test time gives every row of a study, not its teachers alone.

    python benchmarks/smoothed_controls.py colon_patches_control --root runs --neighbours 4 --out smoothed_rows.csv

A student of labels that are averaged over neighbours has seen in training where instances lie. The row `smoothed`
averages its teacher's scores, but no row does that for `matched`, `no_soft_labels` or `no_teacher`. Here the kept
predictions of all rows are averaged likewise; nothing is trained.

Written is a line for each run: method, replicate, and the mean AUC within the images of the test fold, as it is
(`instance_auc_within`) and of the averaged logits (`smoothed_auc_within`). That of a teacher is what its row `smoothed`
has.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import analysis
from analysis.rows.loading import study_folder
from analysis.rows.stored_predictions import run_predictions
from d2l_study.data.neighbours import nearest_means
from d2l_study.learning.localisation import mean_by_image
from d2l_study.learning.metrics import auc

if TYPE_CHECKING:
    import pandas


def aucs_within(frame: pandas.DataFrame, neighbours: int) -> tuple[float, float]:
    """The mean AUC within images of a run's test instances, as they are and of averaged logits.

    frame: `run_predictions` of a run. Images of one class have no AUC.
    """
    image = frame.groupby(["bag_index", "image"]).ngroup().to_numpy()
    logit, xy = frame["logit"].to_numpy(np.float64), frame[["x", "y"]].to_numpy(np.float64)
    means = np.empty_like(logit)
    for one in np.unique(image):
        of_image = image == one
        means[of_image] = nearest_means(logit[of_image], xy[of_image], neighbours)
    known = frame["label"].isin([0, 1]).to_numpy()
    label = frame["label"].to_numpy()[known]
    plain, averaged = (mean_by_image(auc, label, score[known], image[known]) for score in (logit, means))
    return plain, averaged


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--root", default="runs")
    parser.add_argument("--neighbours", type=int, default=4)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    folder = study_folder(arguments.study, arguments.root)
    rows = analysis.load(arguments.study, root=arguments.root)
    made = rows.loc[rows["status"] == "done", ["config_id", "stage", "method", "replicate", "instance_auc_within"]]
    made = made[~made["stage"].isin(["pooled", "smoothed"])].reset_index(drop=True)
    found = [
        aucs_within(run_predictions(folder, config, int(number), split="test", level="instance"),
                    arguments.neighbours)
        for config, number in zip(made["config_id"], made["replicate"], strict=True)
    ]  # fmt: skip
    plain, averaged = np.transpose(found)
    if not np.allclose(plain, made["instance_auc_within"], atol=2e-6):
        raise SystemExit("the AUC of the kept predictions is not that of the rows")
    made.assign(smoothed_auc_within=averaged.round(6)).to_csv(arguments.out, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
