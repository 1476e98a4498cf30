"""Rows of a study without its folder, from values of keys and AUCs."""

import pandas as pd

KEYS = {"study": "s", "dataset": "mnist", "mean_bag_size": 10, "lambda_adv": 0.0, "generation": 0, "seed": 1,
        "stage": "teacher", "fold": None, "status": "done"}  # fmt: skip


def make_rows(configurations, varied=("num_bags", "mean_bag_size", "lambda_adv"), replicates=4):
    """Rows from (values of the keys, AUCs); as many replicates are planned as are given."""
    rows = []
    for i, (values, aucs) in enumerate(configurations):
        for r in range(replicates):
            auc = aucs[r] if r < len(aucs) else None
            row = {**KEYS, "config_id": f"c{i}", "trial_id": f"c{i}", **values, "replicate": r, "bag_auc": auc}
            rows.append({**row, "status": "missing"} if auc is None else row)
    frame = pd.DataFrame(rows)
    frame["bag_auc"] = frame["bag_auc"].astype(float)
    frame.attrs.update(study="s", varied=list(varied))
    return frame
