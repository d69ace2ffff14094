"""The door: what callers hand in becomes plain arrays here, checked once, before anything changes.

Vectors come as numpy arrays (any float dtype, byte order, strides), torch tensors, or lists of either; they leave as C-ordered
float32 with the number of tokens of each document or query. Inner layers trust what passed.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.codecs import Codec
from metaindex.errors import FilterError, NonFiniteError, ShapeError

MAX_ID_BYTES = 1024
_LARGEST_ID = 2**63 - 1

# Lists of documents of different lengths are padded in runs of this many float32 numbers, so one long document among
# short ones costs the padding of its run only.
_RUN_NUMBERS = 16 << 20


class Tokens(NamedTuple):
    """``values`` float32 [N, T, d] and how many tokens of each item count, int32 [N]; the others are zeros."""

    values: NDArray[np.float32]
    lengths: NDArray[np.int32]


class Expected(NamedTuple):
    """What an index takes: ``argument`` is the caller's name for it; ``None`` stands for any number."""

    argument: str
    letters: tuple[str, str, str]
    tokens: int | None
    dim: int | None
    codec: Codec
    normalize: bool

    def describe(self, count: int | str) -> str:
        tokens = self.letters[1] if self.tokens is None else f"{self.letters[1]} <= {self.tokens}"
        dim = self.letters[2] if self.dim is None else f"{self.letters[2]} = {self.dim}"
        return f"({self.letters[0]}, {tokens}, {dim}), got {count}"


def documents(vectors: Any, expected: Expected) -> Iterator[Tokens]:
    """The batches of ``vectors``: one for an array [N, T, d], several for a long list of [t_i, d] or an iterator of batches.

    Raises:
        TypeError: not arrays of floats. ShapeError: wrong rank, too many tokens, wrong d, no tokens.
        NonFiniteError: NaN, infinity, or a value that overflows the codec.
    """
    if isinstance(vectors, Iterator):
        for batch in vectors:
            yield from documents(list(batch) if isinstance(batch, Iterator) else batch, expected)
            del batch  # before the next one is made
    elif isinstance(vectors, (list, tuple)):
        yield from _runs(vectors, expected)
    else:
        yield _checked(_array(vectors, expected.argument), None, expected)


def queries(vectors: Any, expected: Expected) -> Tokens:
    """One query [R, d], a batch [B, R, d], or a list of [r_i, d]. Raises as ``documents`` does."""
    if isinstance(vectors, (list, tuple)):
        arrays = _items(vectors, expected)
        return _padded(arrays, expected) if arrays else Tokens(np.zeros((0, 1, expected.dim or 1), np.float32), _lengths(0, 1))
    array = _array(vectors, expected.argument)
    return _checked(array[None] if array.ndim == 2 else array, None, expected)


def integer(name: str, value: Any, least: int) -> int:
    """``value`` as an integer of at least ``least``. Raises TypeError or ValueError."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {value!r} of type {type(value).__name__}") from None
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    return number


def ids(values: Any, argument: str = "ids") -> NDArray:
    """Ids as int64 [N] or as an object array of ``str`` [N]; an empty list gives int64.

    Raises:
        TypeError: not integers or text, or both. ShapeError: not one-dimensional.
        ValueError: a negative integer, one above 2**63 - 1, or text over 1,024 bytes of UTF-8.
    """
    if _is_torch(values):
        values = values.detach().cpu().numpy()
    if isinstance(values, (str, bytes)) or not isinstance(values, (Iterable, np.ndarray)):
        raise TypeError(f"{argument}: expected a list of integers or of text, got {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ShapeError(f"{argument}: expected (N,), got {values.shape}")
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return _integer_ids(values, argument)
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if all(isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in items):
        return _integer_ids(items, argument)
    if all(isinstance(item, str) for item in items):
        return _text_ids(items, argument)
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise TypeError(f"{argument}: expected all integers or all text, got {kinds}")


def id_lists(values: Any, batch: int) -> list[NDArray]:
    """One list of ids for all queries, or one for each of ``batch`` queries; raises as ``ids`` does.

    Raises:
        ShapeError: several lists, but not one for each query.
    """
    items = values if isinstance(values, (list, tuple, np.ndarray)) or _is_torch(values) else list(values)
    if not len(items) or isinstance(items[0], (str, int, np.integer)) or np.ndim(items[0]) == 0:
        return [ids(items)]
    if len(items) != batch:
        raise ShapeError(f"ids: expected one list, or one for each of {batch} queries, got {len(items)} lists")
    return [ids(each) for each in items]


def metadata(values: Any) -> Iterator[str | None]:
    """One JSON object as text, or ``None``, for each document; each is checked when it is reached.

    Raises:
        TypeError: not dicts with text keys and JSON values. ValueError: NaN or infinity among them.
    """
    if isinstance(values, (Mapping, str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"metadata: expected a list of one dict for each document, got {type(values).__name__}")
    return (_json(item, number) for number, item in enumerate(values))


def mask(value: Any, count: int) -> NDArray[np.bool_] | None:
    """``value`` as a boolean mask [count] if it is one, else ``None``. Raises ShapeError for another length."""
    if _is_torch(value):
        value = value.detach().cpu().numpy()
    if isinstance(value, (list, tuple)) and value and all(isinstance(item, (bool, np.bool_)) for item in value):
        value = np.array(value, dtype=bool)
    if not isinstance(value, np.ndarray) or value.dtype != bool:
        return None
    if value.shape != (count,):
        raise ShapeError(f"filter: expected a mask of shape ({count},), one for each document, got {value.shape}")
    return value


def filter_ids(value: Any, kind: str | None) -> NDArray:
    """The ids that a filter names, of the index's ``kind``. Raises FilterError."""
    if isinstance(value, Mapping):
        raise FilterError("filter: expected a list of ids or a boolean mask, got a dict; metadata fields can't be filtered by")
    try:
        named = ids(value, "filter")
    except TypeError as error:
        raise FilterError(f"{error}; a filter is a list of ids or a boolean mask") from None
    if len(named) and kind is not None and (named.dtype == object) != (kind == "text"):
        raise FilterError(f"filter: this index has {kind} ids, got ids of the other kind")
    return named


def like(values: NDArray, model: Any) -> Any:
    """``values`` as a torch tensor on the device of ``model`` where that is one (or a list that starts with one)."""
    if isinstance(model, (list, tuple)) and model:
        model = model[0]
    if not _is_torch(model) or values.dtype == object:
        return values
    import torch

    return torch.from_numpy(values).to(model.device)


def _is_torch(value: Any) -> bool:
    # Looked up by name: torch is optional and slow to import, and a tensor can't exist unless somebody imported it.
    return any(base.__module__.split(".")[0] == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__)


def _array(value: Any, argument: str) -> NDArray:
    """``value`` as a float array of any rank, not yet checked otherwise; no copy where none is needed."""
    if _is_torch(value):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # numpy has no bfloat16; float32 holds it exactly
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.dtype.name == "bfloat16":
        value = value.astype(np.float32)
    array = value if isinstance(value, np.ndarray) else _from_nested(value, argument)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{argument}: expected float16, float32, float64 or torch bfloat16 numbers, got {array.dtype}; convert them first"
        )
    return array


def _from_nested(value: Any, argument: str) -> NDArray:
    if not hasattr(value, "__array__") and not isinstance(value, (list, tuple, memoryview)):
        raise TypeError(f"{argument}: expected a numpy array, a torch tensor or a list of them, got {type(value).__name__}")
    try:
        return np.asarray(value)
    except ValueError:
        raise ShapeError(f"{argument}: expected rows of one length, got rows of different lengths") from None


def _items(vectors: Sequence[Any], expected: Expected) -> list[NDArray]:
    arrays = [_array(item, expected.argument) for item in vectors]
    dim = expected.dim or next((array.shape[-1] for array in arrays if array.ndim), 0)
    for number, array in enumerate(arrays):
        if array.ndim != 2:
            raise ShapeError(
                f"{expected.argument}[{number}]: expected (tokens, d), got {array.shape}; "
                f"a list holds one array of tokens for each item, a batch is one array or an iterator of arrays"
            )
        if array.shape[1] != dim:
            raise ShapeError(f"{expected.argument}[{number}]: expected (tokens, d = {dim}), got {array.shape}")
    return arrays


def _runs(vectors: Sequence[Any], expected: Expected) -> Iterator[Tokens]:
    arrays = _items(vectors, expected)
    start = longest = 0
    for stop, array in enumerate(arrays):
        longest_with = max(longest, len(array))
        if stop > start and (stop + 1 - start) * longest_with * array.shape[1] > _RUN_NUMBERS:
            yield _padded(arrays[start:stop], expected, start)
            start, longest_with = stop, len(array)
        longest = longest_with
    if arrays:
        yield _padded(arrays[start:], expected, start)


def _padded(arrays: list[NDArray], expected: Expected, first: int = 0) -> Tokens:
    lengths = np.array([len(array) for array in arrays], dtype=np.int32)
    if not lengths.all():
        empty = first + int(np.flatnonzero(lengths == 0)[0])
        raise ShapeError(f"{expected.argument}[{empty}]: expected at least one token, got {arrays[empty - first].shape}")
    values = np.zeros((len(arrays), int(lengths.max()), arrays[0].shape[1]), dtype=np.float32)
    with np.errstate(over="ignore"):  # a float64 that overflows becomes infinite and is reported below
        for row, array in zip(values, arrays):
            row[: len(array)] = array
    return _checked(values, lengths, expected, first)


def _checked(array: NDArray, lengths: NDArray[np.int32] | None, expected: Expected, first: int = 0) -> Tokens:
    if array.ndim != 3:
        fix = "; add a batch axis" if array.ndim == 2 else ""
        raise ShapeError(f"{expected.argument}: expected {expected.describe(str(array.shape))}{fix}")
    count, tokens, dim = array.shape
    fits = expected.tokens is None or tokens <= expected.tokens
    if not fits or not tokens or not dim or dim != (expected.dim or dim):
        raise ShapeError(f"{expected.argument}: expected {expected.describe(str(array.shape))}")
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=np.float32)
    _refuse_non_finite(values, expected, first)
    if expected.normalize:
        values = _normalized(values)
    return Tokens(values, _lengths(count, tokens) if lengths is None else lengths)


def _lengths(count: int, tokens: int) -> NDArray[np.int32]:
    return np.full(count, tokens, dtype=np.int32)


def _refuse_non_finite(values: NDArray[np.float32], expected: Expected, first: int) -> None:
    # Two reductions that NaN and infinity pass through are cheaper than a mask as large as the data.
    if not values.size or max(float(values.max()), -float(values.min())) <= expected.codec.limit:
        return
    bad = np.argwhere(~(np.abs(values) <= expected.codec.limit))
    bad[:, 0] += first
    places = ", ".join(str(tuple(map(int, place))) for place in bad[:3])
    raise NonFiniteError(
        f"{expected.argument}: expected finite numbers that {expected.codec.name} can hold (up to {expected.codec.limit:.5g}), "
        f"got {len(bad)} others, first at {places}"
    )


def _normalized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each vector divided by its L2 norm; a zero vector stays zero. In float64: a float32 square overflows early."""
    norms = np.sqrt(np.einsum("...d,...d->...", values, values, dtype=np.float64))
    norms[norms == 0] = 1
    return np.asarray(values / norms[..., None], dtype=np.float32)


def _integer_ids(values: Any, argument: str) -> NDArray[np.int64]:
    array = np.asarray(values) if len(values) else np.empty(0, np.int64)
    # Integers that no 64-bit dtype holds come out as floats or objects.
    if array.dtype.kind not in "iu" or (len(array) and not 0 <= int(array.min()) <= int(array.max()) <= _LARGEST_ID):
        raise ValueError(
            f"{argument}: expected integers from 0 to 2**63 - 1, got {min(values)} to {max(values)}; -1 marks a missing hit"
        )
    return array.astype(np.int64)


def _text_ids(items: list[str], argument: str) -> NDArray:
    for number, item in enumerate(items):
        try:
            size = len(item.encode())
        except UnicodeEncodeError:
            raise ValueError(f"{argument}[{number}]: expected text that UTF-8 can hold, got {item!r}") from None
        if size > MAX_ID_BYTES:
            raise ValueError(f"{argument}[{number}]: expected at most {MAX_ID_BYTES:,} bytes of UTF-8, got {size:,}")
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _json(item: Any, number: int) -> str | None:
    if item is None:
        return None
    if not isinstance(item, Mapping) or not all(isinstance(key, str) for key in item):
        raise TypeError(f"metadata[{number}]: expected a dict with text keys, or None, got {type(item).__name__}")
    try:
        return json.dumps(dict(item), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise ValueError(f"metadata[{number}]: {error}") from None
    except TypeError as error:
        raise TypeError(f"metadata[{number}]: expected JSON values: {error}") from None
