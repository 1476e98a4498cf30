"""Whether two fitted teachers are the same, to the bit."""

import numpy as np
import torch


def assert_same(a, b):
    """Bit-equal in everything but the time it took."""
    assert (a.replicate, a.status, a.cause, a.best_step, a.steps_run) == (
        b.replicate, b.status, b.cause, b.best_step, b.steps_run
    )  # fmt: skip
    assert a.params.keys() == b.params.keys()
    for name in a.params:
        assert torch.equal(a.params[name], b.params[name]), name
    np.testing.assert_equal(a.curve, b.curve)  # NaN equals NaN
    np.testing.assert_equal(a.metrics, b.metrics)
    np.testing.assert_equal(a.logits, b.logits)


def differ(a, b):
    return any(not torch.equal(a.params[name], b.params[name]) for name in a.params)
