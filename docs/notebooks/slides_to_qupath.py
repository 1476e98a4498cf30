# %% [markdown]
# # From slides to scores in QuPath
#
# This notebook cuts a whole-slide image into tiles, trains a small model, and writes its scores as files that QuPath
# opens. The slide and the training images are synthetic, so that nothing has to be downloaded. They say nothing about
# real tissue. It needs the extra `[wsi]`.
#
# Everything is written to a new folder.

# %%
import os
import tempfile
from pathlib import Path

os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## A slide
# Nine images of tissue side by side, as an Aperio file (`.svs`) of 0.55 µm a pixel, with a pyramid of levels. The
# places of its nuclei are written as QuPath's GeoJSON, which serves as truth later.

# %%
from d2l_study.data.colon_mosaic import write_colon_mosaic
from d2l_study.data.synthetic_tissue import write_colon

Path("slides").mkdir()
Path("truth").mkdir()
drawn = write_colon(Path("drawn"), images=9, side=300, nuclei=60, seed=7)
placed = write_colon_mosaic(Path("slides/example.svs"), Path("truth/example.geojson"), root=drawn)
print(len(placed), "images; the first one:", placed[0])

# %% [markdown]
# ## Tiles
# `tile` finds tissue and cuts it into tiles of one resolution, whatever the slide was scanned at. It trains nothing.
# The picture shows what it took.

# %% language="bash"
# d2l tile slides/ --mpp 0.55 --size 27 --out tiles/ > tile.log 2>&1
# cut -d, -f1,4-9 tiles/tiles.csv

# %%
import io

from IPython.display import Image
from PIL import Image as Picture


def shown(path, width):
    """A picture, reduced to so many pixels."""
    with Picture.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((width, width))
    small.save(out := io.BytesIO(), "JPEG", quality=85)
    return Image(out.getvalue(), width=width)


shown(next(Path("tiles/pictures").iterdir()), 700)

# %% [markdown]
# ## A model
# Trained on 40 other synthetic images with a label each: does the image hold epithelial nuclei? A teacher, and a
# student that learns from it. `data: {dataset: manifest, path: slides.csv, mpp: 0.5, ...}` does the same with slides
# of your own ([whole-slide images](../slides.md)).

# %%
space = """\
description: Which nuclei are epithelial?
data: {dataset: colon_synthetic, images: 40, side: 160, nuclei: 20, folds: 5}
teacher: {steps: 200, eval_every: 50, select: loss}
student: {start: teacher, augment: dihedral, steps: 100, eval_every: 50}
teachers: {vat: {teacher: {lambda_adv: 0.5}}}
methods: {student: {}}
replicates: 1
keep_weights: all
"""

# %%
_ = Path("model.yaml").write_text(space)

# %% language="bash"
# d2l run --space model.yaml > run.log 2>&1

# %%
import analysis

rows = analysis.load("model")
os.environ["STUDENT"] = rows[rows.stage == "student"].trial_id.iloc[0]
rows[["stage", "method", "bag_auc", "instance_auc"]].round(3)

# %% [markdown]
# ## Scores for QuPath
# `label` slides the model over the tissue. `--truth` takes the annotations of a slide: nuclei are scored by the patch
# about each of them.

# %% language="bash"
# d2l label --run $STUDENT slides/ --mpp 0.55 --truth truth/ --positive epithelial \
#   --out scores/ > label.log 2>&1
# ls scores

# %% [markdown]
# In QuPath: *File, Import objects from file* for `example.tiles.geojson` (every tile with its score) or
# `example.regions.geojson` (what is predicted positive, merged). `example.scores.ome.tif` is the map, a pixel for each
# tile. A tile in the GeoJSON:

# %%
import json

tiles = json.loads(Path("scores/example.tiles.geojson").read_text())
tile = tiles["features"][0]
print(len(tiles["features"]), "tiles")
print(json.dumps(tile["geometry"]))
print(json.dumps(tile["properties"]))

# %%
import tifffile

with tifffile.TiffFile("scores/example.scores.ome.tif") as file:
    series = file.series[0]
    print(series.shape, series.dtype, series.axes)

# %%
shown("scores/example.overlay.png", 900)

# %% [markdown]
# ## The same as one table
# `predict` gives the slide and its tiles as one Parquet or CSV file, for work in Python.

# %% language="bash"
# d2l predict --run $STUDENT slides/ --mpp 0.55 --out scores.parquet > predict.log 2>&1

# %%
import pandas as pd

scores = pd.read_parquet("scores.parquet")
scores[["level", "bag", "index", "x", "y", "logit", "score", "predicted"]].head(5).round(3)

# %% [markdown]
# Where to go on: [whole-slide images](../slides.md), [scores of new data](../predict.md),
# [models for QuPath's WSInfer](../models.md#qupath-and-wsinfer).
