"""An order of a document's tokens in which every prefix covers the whole: makes budgets work for embeddings that aren't nested.

The tokens of ColBERT, ColPali or a plain text encoder stand in reading order, so their first few say how the document begins
and nothing about the rest. ``nest`` reorders them greedily. It starts from the normalised mean, the best single summary, and
then takes whichever token most raises

    coverage = sum_i max_{s in chosen} <x_i, x_s>

the facility location objective: how well each of the tokens x_i is represented by the one most similar to it. Coverage is
submodular, so a greedy prefix reaches at least 1 - 1/e of what the best set of its size gains over the mean alone (Nemhauser,
Wolsey and Fisher, 1978).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex.checks import integer, is_torch
from metaindex.errors import NonFiniteError, ShapeError

_LARGEST = 1e15  # products of larger numbers could overflow float32


def nest(tokens: Any, n: int | None = None) -> Any:
    """The tokens of a document in nested order: the normalised mean first, then the tokens that add most.

    The mean is a vector of its own and counts as one of the ``n``, so a document of t tokens gives at most ``n - 1`` of them,
    and ``t + 1`` vectors where ``n`` is not given or larger. The order does not depend on ``n``:
    ``nest(x, 8)`` equals ``nest(x, 64)[:8]``. Equal gains go to the token that stands first. Tokens are compared by their
    inner product as they are: normalise them first if similarity means the cosine.

    Args:
        tokens: one document [t, d], documents of one length [N, t, d], or a list or tuple of documents [t_i, d]; numpy or
            torch, floating numbers, t and d >= 1. Padding is not known as such: pass documents of different lengths as a list.
        n: how many vectors to return at most, >= 1; None for all ``t + 1``.

    Returns:
        ``[min(n, t + 1), d]``, ``[N, min(n, t + 1), d]`` or a list, as the input is; in its dtype and on its device. The mean
        of tokens that cancel out is the zero vector.

    Raises:
        ShapeError: not two- or three-dimensional, or without documents, tokens or dimensions.
        NonFiniteError: a token holds NaN or infinity.
        TypeError: not an array of floating numbers, or ``n`` not an integer.
        ValueError: ``n`` below 1.
    """
    limit = None if n is None else integer("n", n)
    if isinstance(tokens, (list, tuple)):
        return [_nested(document, limit, f"tokens[{place}]", ranks=(2,)) for place, document in enumerate(tokens)]
    return _nested(tokens, limit, "tokens", ranks=(2, 3))


def facility_order(tokens: NDArray[np.floating], steps: int) -> tuple[NDArray[np.floating], list[int]]:
    """The normalised mean [d] of ``tokens`` [t, d] and the positions of the ``steps`` <= t tokens that follow it.

    O(d t^2) for the similarities and O(steps t^2) for the greedy steps.
    """
    exact = tokens.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(exact)
    mean = (exact / length if length > 0 else exact).astype(tokens.dtype)
    similarity = tokens @ tokens.T
    covered = tokens @ mean
    chosen: list[int] = []
    free = np.ones(len(tokens), dtype=bool)
    for _ in range(steps):
        # Row s: how much better each token i would be covered with s among the chosen.
        gains = np.maximum(similarity - covered, 0).sum(axis=1, dtype=np.float64)
        best = int(np.argmax(np.where(free, gains, -1.0)))
        chosen.append(best)
        free[best] = False
        np.maximum(covered, similarity[best], out=covered)
    return mean, chosen


def _nested(tokens: Any, n: int | None, name: str, ranks: tuple[int, ...]) -> Any:
    values = _checked_values(tokens, name, ranks)
    steps = values.shape[-2] if n is None else min(n - 1, values.shape[-2])
    if values.ndim == 2:
        return _reordered(tokens, *facility_order(values, steps))
    documents = [_reordered(document, *facility_order(value, steps)) for document, value in zip(tokens, values, strict=True)]
    return sys.modules["torch"].stack(documents) if is_torch(tokens) else np.stack(documents)


def _reordered(tokens: Any, mean: NDArray[np.floating], chosen: list[int]) -> Any:
    """The mean and the chosen tokens [1 + steps, d], as the kind of array that ``tokens`` [t, d] is."""
    if is_torch(tokens):
        torch = sys.modules["torch"]
        first = torch.from_numpy(mean).to(device=tokens.device, dtype=tokens.dtype)
        return torch.cat([first[None], tokens.detach()[chosen]])
    return np.concatenate([mean[None].astype(tokens.dtype), tokens[chosen]])


def _checked_values(tokens: Any, name: str, ranks: tuple[int, ...]) -> NDArray[np.floating]:
    """``tokens`` as float32 (float64 where they are) in host memory."""
    if is_torch(tokens):
        if not tokens.is_floating_point():
            raise TypeError(f"{name}: expected floating numbers, got {tokens.dtype}; convert with .float()")
        host = tokens.detach().cpu().resolve_conj().resolve_neg()
        values = (host if host.dtype.itemsize == 8 else host.float()).numpy()
    elif isinstance(tokens, np.ndarray):
        if not np.issubdtype(tokens.dtype, np.floating):
            raise TypeError(f"{name}: expected floating numbers, got {tokens.dtype}; convert with .astype(numpy.float32)")
        values = np.asarray(tokens, dtype=np.result_type(tokens.dtype, np.float32))
    else:
        raise TypeError(f"{name}: expected a numpy array or a torch tensor, got {type(tokens).__name__}")
    if values.ndim not in ranks or 0 in values.shape:
        letters = " or ".join({2: "[t, d]", 3: "[N, t, d]"}[rank] for rank in ranks)
        raise ShapeError(f"{name}: expected {letters} with no length of 0, got shape {tuple(values.shape)}")
    if not (np.abs(values) <= _LARGEST).all():
        raise NonFiniteError(
            f"{name}: expected finite numbers up to {_LARGEST:g}, got others; remove or repair these vectors first"
        )
    return np.asarray(values)
