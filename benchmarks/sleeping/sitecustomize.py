"""Trials that sleep: with this folder on PYTHONPATH, a trial of `scaling.py` trains nothing and waits.

It takes D2L_SLEEP seconds, reports D2L_REPORTS times on the way and commits what a trial commits (row, curve, the
logits of 1,000 test bags), with invented outcomes. The seam is `trial.compute_runs`; all else of the study is real.
"""

import importlib.util
import os
import sys

BAGS = 1000
METRICS = ("bag_auc", "bag_nll", "bag_brier", "instance_auc", "val_bag_auc", "val_bag_nll", "val_bag_brier")


def sleep_instead(trial):
    import io
    import json
    import platform
    import time

    import numpy as np

    seconds, reports = float(os.environ["D2L_SLEEP"]), int(os.environ["D2L_REPORTS"])

    def predictions(replicate):
        import pandas as pd

        drawn = np.random.default_rng(replicate)
        label = (np.arange(BAGS) % 2).astype("int8")
        out = io.BytesIO()
        pd.DataFrame({
            "replicate": replicate, "stage": "teacher", "split": "test", "level": "bag",
            "bag_index": np.arange(BAGS, dtype="int32"), "index": np.arange(BAGS, dtype="int32"), "label": label,
            "logit": drawn.normal(2.0 * label - 1, 1.0).astype("float32"),
        }).to_parquet(out, index=False)  # fmt: skip
        return out.getvalue()

    def compute_runs(request, replicates, folder, report=None, checkpoints=None):
        begun, curve = time.time(), []
        for step in range(1, reports + 1):
            time.sleep(seconds / reports)
            values = dict.fromkeys(METRICS, 1 - 1 / (1 + step))
            curve.append({"step": step, **values})
            report(step, dict.fromkeys(replicates, values))
        for r in replicates:
            row = {"status": "done", "cause": None, "repeat": r, "fold": None, "seed": request.base_seed,
                   **{name: curve[-1][name] for name in METRICS}, "best_step": reports, "steps_run": reports,
                   "train_seconds": seconds, "eval_seconds": 0.0, "device": "none", "host": platform.node(),
                   "code_version": request.code_version, "made_by": request.study, "committed_at": trial.timestamp(),
                   "began": str(begun), "slept": str(time.time())}  # fmt: skip
            yield r, row, {"curve.json": json.dumps(curve).encode(), "predictions.parquet": predictions(r)}

    trial.compute_runs = compute_runs


class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "d2l_study.study.trial.trial":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            sleep_instead(module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("D2L_SLEEP"):
    sys.meta_path.insert(0, Finder())
