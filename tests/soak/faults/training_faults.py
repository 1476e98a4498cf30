"""Which trials of a study under test fail, and how; `sitecustomize.py` lets the processes of a study do so.

D2L_FAULTS = "exit:2 memory:1 raise:9 …": a kind, and on how many attempts it strikes. Which trial meets which kind is
decided by a hash of its id alone (`kind_of`), so that a test can tell beforehand.
D2L_PATIENCE: seconds that a bucket which does not answer is waited for.
"""

import os


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
