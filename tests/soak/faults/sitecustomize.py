"""Faults for the processes of a study under test: with this folder on PYTHONPATH, each Python fails as D2L_FAULTS says.

Tests import `training_faults.py`: an interpreter may have a `sitecustomize` of its own, as Debian's does.
"""

import importlib.util
import os
import sys

from training_faults import make_faulty, make_impatient


class Finder:
    """Changes a module when it is imported."""

    def __init__(self, name, change):
        self.name, self.change = name, change

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            self.change(module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("D2L_FAULTS"):
    sys.meta_path.insert(0, Finder("d2l_study.study.trial.trial", make_faulty))
if os.environ.get("D2L_PATIENCE"):
    sys.meta_path.insert(0, Finder("d2l_study.study.ledger.object_storage", make_impatient))
