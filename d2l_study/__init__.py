"""Distill-to-Label studies: weak bag labels to instance labels, with statistics one can trust.

Rooms, each importing only those before it: `data` (bags), `models` (pure functions of parameters and
inputs), `learning` (teacher, regularizers, metrics), `inference`, `study` (Ray Tune, ledger, MLflow), `cli`.
Nothing heavy is imported here.
"""

__version__ = "0.1.0"

SCIENCE_VERSION = 2
"""The latest of `learning.science_version.CHANGES`. A configuration's own version, part of its identity, is that of
the last change that touched its results."""
