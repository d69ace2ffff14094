"""Short runs of a tiny model, to be compared."""

from __future__ import annotations

import numpy as np

from metaindex.training import MMRLoss, TrainingOptions, train
from tests.training.tiny import R, T, examples, model, weights

EXAMPLES, HELD_OUT = examples(17, hard=1), examples(6, hard=1, seed=1)
OPTIONS = TrainingOptions(
    epochs=2, batch_size=4, chunk_size=3, learning_rate=1e-2, meta_learning_rate=1e-2, log_every=1, evaluate_every=3
)
LOSS = MMRLoss(((1, 1), (R, T)))


def without_times(log):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in log]


def trained(made=None, options=OPTIONS, **more):
    made = model(dropout=0.1) if made is None else made
    log = train(made, EXAMPLES, options, loss=LOSS, **more)
    return weights(made), log


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
