"""Every tolerance of the tests, each with its reason."""

from __future__ import annotations

# nest: the mean is computed in float32, its brute-force twin in float64.
NESTING_MEAN = 1e-6
# nest on torch's 16-bit types: the mean is rounded to 8 bits of mantissa (bfloat16).
NESTING_BFLOAT16_MEAN = 4e-3
# nest: coverages of documents of up to nine small integer vectors, summed in another order.
NESTING_COVERAGE = 1e-9
