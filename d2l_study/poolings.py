"""The names of the poolings: keys of spaces take them where no torch is loaded, and networks are built from them."""

POOLINGS = (
    "attention", "gated_attention", "instance_max", "instance_mean", "embedding_max", "embedding_mean",
)  # fmt: skip
