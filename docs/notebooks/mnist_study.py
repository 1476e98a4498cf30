# %% [markdown]
# # From a first study to a table and a figure for a paper
#
# A bag holds about ten MNIST digits. It is positive if one of them is a 9. Does virtual adversarial training (VAT) help
# when few bags are labelled? This notebook asks that, and makes the table and the figure of the answer.
#
# Everything is written to a new folder. The settings are so small that the notebook takes a minute. They are too small
# for a claim.

# %%
import os
import tempfile
from pathlib import Path

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## The space
# A space says what to study. A list is an axis: every combination is trained, once for each replicate. A replicate has
# new bags and new initial weights, the same ones in every method, so that methods can be compared in pairs.

# %%
space = """\
description: Does VAT help with few labelled bags?
data: {dataset: mnist, num_bags: [20, 40], mean_bag_size: 10, test_bags: 300}
teacher: {steps: 150, eval_every: 50}
methods:
  none: {}
  vat: {teacher: {lambda_adv: 0.5, epsilon: 4}}
labels: {none: Attention MIL, vat: with VAT}
replicates: 5
base_seed: 1
"""

# %%
_ = Path("first.yaml").write_text(space)

# %% [markdown]
# `plan` checks the space and says what it would train. `run` trains. It goes on where it was interrupted, and what is
# there already is not trained again. What it prints meanwhile goes to a file here.

# %% language="bash"
# d2l plan --space first.yaml | head -3
# d2l run --space first.yaml > run.log 2>&1

# %% [markdown]
# ## The table
# A cell is the mean AUC on the test bags, ± the half-width of its 95 % interval over replicates, and their number. The
# last row is the difference of the methods, paired by replicate.

# %%
import analysis

rows = analysis.load("first")
table = analysis.table(rows, "bag_auc")
table

# %% [markdown]
# For the paper, as LaTeX:

# %%
print(table.text("latex"))

# %% [markdown]
# ## The tests
# Few replicates separate little. The smallest p-value that Wilcoxon's test can reach with five pairs is 0.0625. Twenty
# replicates cost four times as much, and only the new ones are trained: `run --space first.yaml --replicates 20`.

# %%
analysis.compare(rows, {"method": "none"})

# %% [markdown]
# ## The figure
# `.pdf`, `.svg` or `.png`, at the width of a column, a page or a slide. Text stays text in the PDF.

# %%
from IPython.display import Image

figure = analysis.figure(rows, "curves", size="column")
figure.savefig("auc.pdf")
figure.savefig("auc.png", dpi=150)
Image("auc.png", width=420)

# %% [markdown]
# On the command line these are `d2l tables first`, `compare first --baseline method=none` and
# `figure first --kind curves --size column --out auc.pdf`. A report with all of it lies in the study's folder:

# %%
Path("runs/studies/first/report.html").exists()

# %% [markdown]
# Where to go on: [the space language](../spaces.md), [tables, tests and figures](../tables_and_figures.md),
# [what was found with enough replicates](../results.md#vat).
