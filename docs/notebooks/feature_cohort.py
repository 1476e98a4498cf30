# %% [markdown]
# # From the features of a cohort to scores of its tiles
#
# An encoder has turned each slide into a file of vectors, one for each tile. A table says which slide is of which
# patient and has which label. This notebook goes from there to a student that scores single tiles.
#
# Everything is written to a new folder.

# %%
import os
import tempfile
from pathlib import Path

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## A data set that is there already
# MUSK1 comes with the package: 92 molecules (bags) with 476 shapes (instances) of 166 dimensions. Without Ray and
# MLflow a teacher is trained in a line. A replicate of given bags is a fold.

# %%
from d2l_study.data import DATASETS
from d2l_study.learning import TeacherConfig, fit_teacher

musk = DATASETS["features"](path="musk1", folds=10)
pool = musk.load_pool()
folds = [musk.replicate(pool, number, base_seed=1) for number in range(3)]
config = TeacherConfig(extractor="mlp", feature_width=64, steps=200, eval_every=50, batch_bags=4, select="loss")
for teacher in fit_teacher(config, folds):
    bags = len(folds[teacher.replicate].test)
    print(f"fold {teacher.replicate}: AUC {teacher.metrics['bag_auc']:.3f} on {bags} test bags")

# %% [markdown]
# ## A cohort of our own
# Real files come from TRIDENT, CLAM, STAMP and others, and are read as they are. Here 40 small ones are made: 24 tiles
# a slide, 32 dimensions. In a positive slide every fifth tile differs from the others. Which ones is kept beside the
# features (`patch_labels`), and used to evaluate only.

# %%
import h5py
import numpy as np

features = Path("cohort/20x_256px_0px_overlap/features_example")
features.mkdir(parents=True)
rng = np.random.default_rng(1)
lines = ["patient,slide_id,label"]
for number in range(40):
    positive = number % 2
    truth = (np.arange(24) % 5 == 0) & bool(positive)
    vectors = rng.normal(0, 1, (24, 32)) + 0.9 * truth[:, None] * np.sin(np.arange(32))
    with h5py.File(features / f"S{number:02}.h5", "w") as file:
        file["features"] = vectors.astype(np.float32)
        file["coords"] = np.stack([np.arange(24) % 6, np.arange(24) // 6], axis=1) * 256
        file["patch_labels"] = truth.astype(np.int8)
    lines.append(f"P{number // 4 * 2 + positive:02},S{number:02},{positive}")
_ = Path("cohort/slides.csv").write_text("\n".join(lines) + "\n")
print("\n".join(lines[:4]))

# %% [markdown]
# The space names the table; the files are found below it. Each student learns from its teacher. `matched` adds the
# control that it needs: a teacher trained as long as teacher and student together.

# %%
_ = Path("cohort/ours.yaml").write_text("""\
description: Does a student find the tiles?
data: {dataset: features, path: slides.csv, folds: 5}
teacher: {extractor: mlp, feature_width: 32, steps: 100, eval_every: 25, batch_bags: 4}
student: {network: mlp, feature_width: 32, start: teacher, steps: 100, eval_every: 25}
teachers: {plain: {}}
methods: {student: {}}
references: [matched]
replicates: 5
keep_weights: all
""")

# %% [markdown]
# `plan` looks at every file and trains nothing. It says what was found in them, and what the parts of the folds hold.

# %% language="bash"
# d2l plan --space cohort/ours.yaml | grep -v "at a time"

# %% language="bash"
# d2l run --space cohort/ours.yaml > run.log 2>&1

# %% [markdown]
# ## How well tiles are found
# Training saw labels of slides alone. AUC within slides is about the tiles of one slide, so that telling slides apart
# gains nothing. The intervals say how little five small folds can tell.

# %%
import analysis

rows = analysis.load("ours")
analysis.table(rows, ["instance_auc_within", "bag_auc"], column_key="metric")

# %% [markdown]
# ## Scores of the student
# `predict` scores slides and their tiles, without labels. The model is the student of the fold with the best validation
# AUC.

# %%
student = rows[rows.stage == "student"].trial_id.iloc[0]
os.environ["STUDENT"] = student

# %% language="bash"
# d2l predict --run $STUDENT cohort/slides.csv --out scores.parquet | tail -2

# %%
import pandas as pd

scores = pd.read_parquet("scores.parquet")
scores[scores.bag == "S01"][["level", "index", "x", "y", "logit", "score", "predicted"]].head(8).round(3)

# %% [markdown]
# In Python the same model is an object that takes arrays:

# %%
import d2l_study

model = d2l_study.load(student)
with h5py.File(features / "S01.h5") as file:
    vectors, truth = file["features"][:], file["patch_labels"][:]
found = model.predict_instances(vectors)
print("mean score of tiles that differ:", found[truth == 1].mean().round(3))
print("mean score of the others:       ", found[truth == 0].mean().round(3))

# %% [markdown]
# Where to go on: [which files and tables are read](../own_data.md), [scores of new data](../predict.md),
# [validation on another cohort](../evaluate.md), [students and their controls](../students.md).
