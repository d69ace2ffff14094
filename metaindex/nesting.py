"""Orders of a document's tokens in which every prefix covers the whole: make budgets work for embeddings that aren't nested.

The tokens of ColBERT, ColPali or a plain text encoder stand in reading order, so their first few say how the document begins
and nothing about the rest. ``nest`` puts them into one of three orders. Each begins with a mean of all tokens, the best single
summary, and goes on greedily or by draws:

- **facility** takes whichever token most raises

      coverage = sum_i max_{s in chosen} <x_i, x_s>

  the facility location objective: how well each of the tokens x_i is represented by the one most similar to it. Coverage is
  submodular, so a greedy prefix reaches at least 1 - 1/e of what the best set of its size gains over the mean alone (Nemhauser,
  Wolsey and Fisher, 1978).
- **clusters** makes the tree of Ward's hierarchical clustering (1963) and takes the mean of whichever cluster, of any size,
  most raises how well the cluster's own tokens are represented. A mean stands for many tokens better than any of them does.
- **sample** draws tokens, each with a probability that grows with the square of its distance to the nearest vector chosen so
  far, as k-means++ does (Arthur and Vassilvitskii, 2007).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaindex import _native
from metaindex.checks import integer, is_torch, usable_cores
from metaindex.errors import NonFiniteError, ShapeError

ORDERS = ("facility", "clusters", "sample")

_LARGEST = 1e15  # products of larger numbers could overflow float32


def nest(tokens: Any, n: int | None = None, *, order: str = "facility", seed: int = 0, num_threads: int | None = None) -> Any:
    """The tokens of a document in an order in which every prefix covers the whole.

    - ``"facility"``: the normalised mean, then the tokens that add most.
    - ``"clusters"``: means of clusters of tokens, from all tokens together down to single ones, each as long as its tokens are
      on average. Such vectors find more at equal number than tokens that were picked, but they are no longer the model's own.
    - ``"sample"``: the normalised mean, then tokens by draws. It is worse, and the only one whose time and memory grow with t
      and not with its square: for very long documents.

    The order does not depend on ``n``: ``nest(x, 8)`` equals ``nest(x, 64)[:8]``. Equal gains go to the token that stands
    first.
    Tokens are compared in float32 and by their inner product as they are: normalise them first if similarity means the cosine.
    The answer is the same on every machine, for any number of threads and whatever else is in the list.

    Args:
        tokens: one document [t, d], documents of one length [N, t, d], or a list or tuple of documents [t_i, d]; numpy or
            torch, floating numbers, t and d >= 1. Padding is not known as such: pass documents of different lengths as a list.
        n: how many vectors to return at most, >= 1; None for all: ``t + 1``, the mean and every token, or for ``"clusters"``
            ``t``, among which not every token need be.
        order: ``"facility"``, ``"clusters"`` or ``"sample"``.
        seed: of the draws of ``"sample"``, >= 0.
        num_threads: documents that are worked on at once; as many as this process may use by default. But for ``"sample"``
            each takes 4 t^2 bytes meanwhile, and 16 t d for ``"clusters"`` besides.

    Returns:
        ``[k, d]``, ``[N, k, d]`` or a list, as the input is, k being ``n`` or less; in its dtype and on its device. A mean of
        tokens that cancel out is the zero vector.

    Raises:
        ShapeError: not two- or three-dimensional, or without documents, tokens or dimensions.
        NonFiniteError: a token holds NaN or infinity, or a number above 1e15.
        TypeError: not an array of floating numbers; ``n``, ``seed`` or ``num_threads`` not an integer.
        ValueError: ``n``, ``seed`` or ``num_threads`` out of bounds, or an unknown ``order``.
        BackendError: the compiled module is missing.
    """
    limit = None if n is None else integer("n", n)
    check_order(order)
    drawn = integer("seed", seed, least=0)
    threads = usable_cores() if num_threads is None else integer("num_threads", num_threads, most=1024)
    if isinstance(tokens, (list, tuple)):
        values = [_checked_values(document, f"tokens[{place}]", ranks=(2,)) for place, document in enumerate(tokens)]
        found = _nested(values, limit, order, drawn, threads)
        return [_like(document, *made) for document, made in zip(tokens, found)]
    stack = _checked_values(tokens, "tokens", ranks=(2, 3))
    if stack.ndim == 2:
        return _like(tokens, *_nested([stack], limit, order, drawn, threads)[0])
    documents = [_like(document, *made) for document, made in zip(tokens, _nested(stack, limit, order, drawn, threads))]
    return sys.modules["torch"].stack(documents) if is_torch(tokens) else np.stack(documents)


def check_order(order: Any) -> str:
    """``order`` as one of ``ORDERS``. Raises ValueError."""
    if order not in ORDERS:
        raise ValueError(f"order: expected one of {', '.join(ORDERS)}, got {order!r}")
    return str(order)


def _nested(
    documents: Sequence[NDArray[np.float32]] | NDArray[np.float32], n: int | None, order: str, seed: int, num_threads: int
) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """For each document [t, d] its vectors [k, d], and the places [k] of those that are tokens, -1 for the others."""
    made = []
    for document in documents:
        size = _native.core.nested_size(order, len(document))
        size = size if n is None else min(n, size)
        made.append((np.empty((size, document.shape[1]), np.float32), np.empty(size, np.int64)))
    vectors, places = [each for each, _ in made], [each for _, each in made]
    _native.core.nest(order, list(documents), vectors, places, seed, num_threads=num_threads)
    return made


def _like(tokens: Any, vectors: NDArray[np.float32], places: NDArray[np.int64]) -> Any:
    """``vectors`` [k, d] as the kind of array that ``tokens`` [t, d] is; those that are tokens with all of their digits."""
    if is_torch(tokens):
        made = sys.modules["torch"].from_numpy(vectors).to(device=tokens.device, dtype=tokens.dtype)
        tokens = tokens.detach()
    else:
        made = vectors.astype(tokens.dtype, copy=False)
    if tokens.dtype.itemsize > vectors.dtype.itemsize:
        made[places >= 0] = tokens[places[places >= 0]]
    return made


def _checked_values(tokens: Any, name: str, ranks: tuple[int, ...]) -> NDArray[np.float32]:
    """``tokens`` as float32 in host memory."""
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
    return np.require(values, np.float32, ["C", "A"])
