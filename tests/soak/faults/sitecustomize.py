"""Faults for the processes of a study under test: with this folder on PYTHONPATH, training fails as D2L_FAULTS says.

D2L_FAULTS = "exit:2 memory:1 raise:9 …": a kind, and on how many attempts it strikes. Which trial meets which kind is
decided by a hash of its id alone (`kind_of`), so that a test can tell beforehand.
D2L_PATIENCE: seconds that a bucket which does not answer is waited for.
"""

import importlib.util
import os
import sys


def kind_of(config_id, faults):
    """The fault that a configuration meets, and on how many attempts: (kind, count), or ("none", 0)."""
    known = [("none", 0), *((word.split(":")[0], int(word.split(":")[1])) for word in faults.split())]
    return known[int(config_id, 16) % len(known)]


def strike(request, packed):
    kind, count = kind_of(request.config_id, os.environ["D2L_FAULTS"])
    if request.attempt > count:
        return
    if kind == "exit":
        os._exit(1)
    if kind == "memory" and (packed or len(request.replicates) > 1):
        raise MemoryError("made to run out of memory")
    if kind == "raise":
        raise ZeroDivisionError("made to fail")


def make_faulty(trial):
    train = trial._Trial._train

    def faulty(self, runs):
        for number in runs:
            strike(self.requests[number], len(runs) > 1)
        return train(self, runs)

    trial._Trial._train = faulty


def make_impatient(storage):
    storage.PATIENCE = float(os.environ["D2L_PATIENCE"])


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
