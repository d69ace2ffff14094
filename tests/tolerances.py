"""Every tolerance of the tests, each with its reason."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# nest: the mean is computed in float32, its brute-force twin in float64.
NESTING_MEAN = 1e-6
# nest on torch's 16-bit types: the mean is rounded to 8 bits of mantissa (bfloat16).
NESTING_BFLOAT16_MEAN = 4e-3
# nest: coverages of documents of up to nine small integer vectors, whose similarities to the mean are rounded to float32.
NESTING_COVERAGE = 2e-5
# nest: a share of 4,000 draws against its probability, four standard deviations.
DRAWN_SHARE = 0.032
# nDCG, MRR and recall in float64, worked out by hand in another order.
METRIC = 1e-12
# int8's nDCG against float32's on the demo's data, relative.
INT8_NDCG = 0.01
# L2 norms of float32 vectors that were normalised.
UNIT_LENGTH = 1e-5
# Token vectors of one text, encoded alone and in a batch of longer ones.
BATCHED_MODEL = 1e-4
# Unit vectors of a tiny model in bfloat16 against float32: 8 bits of mantissa through two layers of large random weights.
BFLOAT16_MODEL = 0.15
# The same of one whose adapter and Meta Tokens went through float16.
FLOAT16_MODEL = 1e-2


def score_tolerance(expected: NDArray) -> dict[str, float]:
    """MaxSim against the float64 reference on decoded values. float32 sums of up to some thousand terms lose a few units of
    2**-24 of the largest partial sum; int8 sums are exact and lose it in scales and the last sum only, which is no more."""
    return {"rtol": 1e-5, "atol": 1e-5 * max(1.0, float(np.abs(expected).max(initial=0)))}


# bench: a float32 score against float64, relative.
BENCH_FLOAT32 = 1e-5
# bench: int8 scores against float64 on the original vectors, relative; 16 dimensions average little of the rounding away.
BENCH_INT8 = 5e-2
# Stage times that exact rates made, from fitted rates: those of memory are tried 15 % apart, and several explain the same.
FITTED_TIME = 0.1
# The same of threads, whose speeds are tried about 25 % apart.
FITTED_THREADS = 0.2

# The coarse stage: float32 inner products of some hundred terms of about 1, summed by FAISS and by numpy.
COARSE_INNER_PRODUCT = 1e-3

# The training loss in float32 against its formula in float64. A logit of 533 is a sum of 16 products over 0.03, each with an
# error of some units of 2**-24: it is off by about 1e-4, and so is the loss, a difference of logits.
MMR_LOSS = {"rtol": 1e-5, "atol": 3e-4}
# Its gradients, relative to the largest: probabilities, off by as much as the logits.
MMR_GRADIENT = 1e-3
# Gradients of a tiny model, of chunks against a whole batch, relative to the largest: float32 sums in another order.
CHUNKED_GRADIENT = 1e-3
# What vectors leave uncovered, and its gradients: cosines in float32, whose errors a softness of 0.05 makes 20 times as large.
UNCOVERED = 2e-5
# The loss of a tiny model in bfloat16: unit vectors off by a hundredth, divided by a temperature of 0.03.
BFLOAT16_LOSS = 0.5
# Weights after four steps of AdamW by two processes against one: a step is as long where the gradient is nearly nothing.
TRAINED_WEIGHT = 2e-3
# The loss at the last of them, relative.
TRAINED_LOSS = 1e-2
