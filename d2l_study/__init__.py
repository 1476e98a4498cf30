"""Distill-to-Label studies: weak bag labels to instance labels, with statistics one can trust.

Rooms, each importing only those before it: `data` (bags), `models` (pure functions of parameters and
inputs), `learning` (teacher, regularizers, metrics), `inference`, `study` (Ray Tune, ledger, MLflow), `cli`.
Nothing heavy is imported here.
"""

__version__ = "0.1.0"

SCIENCE_VERSION = 1
"""Part of every configuration's identity. Raise it when the same configuration would give other numbers."""
