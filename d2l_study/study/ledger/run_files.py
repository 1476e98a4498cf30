"""The names of the files that a committed run may have."""

WEIGHTS = "weights.safetensors"
PREDICTIONS = "predictions.parquet"
"""Every logit with its label."""

CURVE = "curve.json"
"""The validations of its training, in a list: `step` and their metrics."""

GENERATIONS = "generations.json"
"""Of a student that teaches the next one: the results of each generation."""

SCORE_MAPS = "maps.npz"
"""Score maps of some test images: `logits0`, `places0`, `logits1`, … and `meta`, a JSON text."""

SCORE_MAP_REPLICATE = 0
"""The one replicate whose maps are kept: the same test images for all arms, and a few pictures per trial."""
