"""The door: what callers hand in becomes plain arrays here, checked once, before anything changes.

Vectors come as numpy arrays (any float dtype, byte order, strides), torch tensors, or lists of either; they leave as C-ordered
float32, or float16 where that is what is kept, with the number of tokens of each document or query. Inner layers trust what
passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metaindex.checks import is_torch
from metaindex.codecs import Codec
from metaindex.codecs.base import LARGEST_NUMBER
from metaindex.errors import FilterError, NonFiniteError, ShapeError

MAX_ID_BYTES = 1024
MAX_METADATA_DEPTH = 500  # every SQLite reads that
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # an escape, and not an escaped backslash before "u0000"
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')
_LARGEST_ID = 2**63 - 1

# Lists of documents of different lengths are padded in runs of this many float32 numbers, so one long document among
# short ones costs the padding of its run only.
_RUN_NUMBERS = 16 << 20


class Tokens(NamedTuple):
    """``values`` float32 [N, T, d], or float16 where they came so and the codec keeps just that, and how many tokens of each
    item count, int32 [N]; the others are zeros."""

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


def documents(vectors: Any, expecting: Callable[[], Expected]) -> Iterator[Tokens]:
    """The batches of ``vectors``: one for an array [N, T, d], several for a long list of [t_i, d] or an iterator of batches.

    ``expecting`` is asked before each batch, since the first one may decide what the later ones must be.

    Raises:
        TypeError: not arrays of floats. ShapeError: wrong rank, too many tokens, wrong d, no tokens.
        NonFiniteError: NaN, infinity, or a value that overflows the codec.
    """
    if isinstance(vectors, Iterator):
        for batch in vectors:
            yield from documents(list(batch) if isinstance(batch, Iterator) else batch, expecting)
            del batch  # before the next one is made
    elif isinstance(vectors, (list, tuple)):
        yield from _runs(vectors, expecting())
    else:
        expected = expecting()
        yield _checked(_array(vectors, expected.argument), None, expected)


def queries(vectors: Any, expected: Expected) -> Tokens:
    """One query [R, d], a batch [B, R, d], or a list of [r_i, d]. Raises as ``documents`` does."""
    if isinstance(vectors, (list, tuple)):
        arrays = _items(vectors, expected)
        return _padded(arrays, expected) if arrays else Tokens(np.zeros((0, 1, expected.dim or 1), np.float32), _lengths(0, 1))
    array = _array(vectors, expected.argument)
    return _checked(array[None] if array.ndim == 2 else array, None, expected)


def ids(values: Any, argument: str = "ids", kind: str | None = None) -> NDArray:
    """Ids as int64 [N] or as an object array of ``str`` [N]; an empty list gives int64, or what ``kind`` says.

    Raises:
        TypeError: not integers or text, both, or not of the index's ``kind``. ShapeError: not one-dimensional.
        ValueError: a negative integer, one above 2**63 - 1, or text over 1,024 bytes of UTF-8.
    """
    array = _ids(values, argument)
    if not len(array):
        return array.astype(object) if kind == "text" else array.astype(np.int64)
    given = "text" if array.dtype == object else "int"
    if kind not in (None, given):
        raise TypeError(f"{argument}: this index has {kind} ids, got {given} ids; give ids of the same kind")
    return array


def _ids(values: Any, argument: str) -> NDArray:
    if is_torch(values):
        values = values.detach().cpu().numpy()
    if isinstance(values, (str, bytes)) or not isinstance(values, (Iterable, np.ndarray)):
        raise TypeError(f"{argument}: expected a list of integers or of text, got {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ShapeError(f"{argument}: expected (N,), got {values.shape}")
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return _integer_ids(values, argument)
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    if all(type(item) is int for item in items):
        return _integer_ids(items, argument)
    if all(isinstance(item, str) for item in items):
        return _text_ids(items, argument)
    if all(_is_integer(item) for item in items):
        return _integer_ids([int(item) for item in items], argument)
    kinds = ", ".join(sorted({type(item).__name__ for item in items}))
    raise TypeError(f"{argument}: expected all integers or all text, got {kinds}")


class IdList(NamedTuple):
    """Ids [n], and the places int64 [n] at which they stood in a list of ``length``: a missing hit is left out."""

    ids: NDArray
    places: NDArray[np.int64]
    length: int


def id_lists(values: Any, batch: int, argument: str, kind: str | None) -> list[IdList]:
    """One list of ids for all queries, or one for each of ``batch`` queries; -1 and ``None``, as results are padded with, are
    empty places. Raises as ``ids`` does.

    Raises:
        ShapeError: several lists, but not one for each query.
    """
    if is_torch(values):
        values = values.detach().cpu().numpy()
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{argument}: expected a list of ids, or one for each query, got {type(values).__name__}")
    items = values if isinstance(values, np.ndarray) else list(values)
    flat = items.ndim == 1 if isinstance(items, np.ndarray) else not any(map(_is_list, items))
    if flat:
        return [_id_list(items, argument, kind)]
    if len(items) != batch:
        raise ShapeError(f"{argument}: expected one list, or one for each of {batch} queries, got {len(items)} lists")
    return [_id_list(each, argument, kind) for each in items]


def _is_list(item: Any) -> bool:
    return isinstance(item, (list, tuple, np.ndarray)) or (is_torch(item) and item.ndim > 0)


def _id_list(values: Any, argument: str, kind: str | None) -> IdList:
    if is_torch(values):
        values = values.detach().cpu().numpy()
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"{argument}: expected a list of ids for each query, got {type(values).__name__}")
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        known = np.flatnonzero(values != -1)
        return IdList(ids(values[known], argument, kind), known, len(values))
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    places = [place for place, item in enumerate(items) if item is not None and not (type(item) is int and item == -1)]
    kept = items if len(places) == len(items) else [items[place] for place in places]
    return IdList(ids(kept, argument, kind), np.array(places, dtype=np.int64), len(items))


def metadata(values: Any, names: set[str]) -> Iterator[str | None]:
    """One JSON object as text, or ``None``, for each document; each is checked, and its keys put into ``names``, when it is
    reached.

    Raises:
        TypeError: not dicts with text keys and JSON values. ValueError: NaN, infinity, a NUL character or too many levels.
    """
    if isinstance(values, (Mapping, str, bytes)) or not isinstance(values, Iterable):
        raise TypeError(f"metadata: expected a list of one dict for each document, got {type(values).__name__}")
    return (_json(item, number, names) for number, item in enumerate(values))


def mask(value: Any, count: int) -> NDArray[np.bool_] | None:
    """``value`` as a boolean mask [count] if it is one, else ``None``. Raises ShapeError for another length."""
    if is_torch(value):
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
    try:
        return ids(value, "filter", kind)
    except TypeError as error:
        raise FilterError(f"{error}; a filter is a dict of fields, a list of ids or a boolean mask") from None


def like(values: NDArray, model: Any) -> Any:
    """``values`` as a torch tensor on the device of ``model`` where that is one (or a list that starts with one)."""
    if isinstance(model, (list, tuple)) and model:
        model = model[0]
    if not is_torch(model) or values.dtype == object:
        return values
    import torch

    return torch.from_numpy(values).to(model.device)


def _array(value: Any, argument: str) -> NDArray:
    """``value`` as a float array of any rank, not yet checked otherwise; no copy where none is needed."""
    if is_torch(value):
        value = _from_torch(value, argument)
    if isinstance(value, np.ndarray) and value.dtype.name == "bfloat16":
        value = value.astype(np.float32)
    array = value if isinstance(value, np.ndarray) else _from_nested(value, argument)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{argument}: expected float16, float32, float64 or torch bfloat16 numbers, got {array.dtype}; convert them first"
        )
    return array


def _from_torch(value: Any, argument: str) -> NDArray:
    try:
        value = value.detach().cpu().resolve_conj().resolve_neg()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # numpy has no bfloat16; float32 holds it exactly
        array: NDArray = value.numpy()
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise TypeError(f"{argument}: expected a dense torch tensor of floats, got {value.dtype} ({reason})") from None
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
    lengths = _lengths(count, tokens) if lengths is None else lengths
    if expected.codec.name == "float16" and array.dtype == np.float16 and not expected.normalize and _all_finite(array):
        return Tokens(np.ascontiguousarray(array), lengths)
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(array, dtype=np.float32)
    # What is normalised first fits any codec.
    _refuse_non_finite(values, LARGEST_NUMBER if expected.normalize else expected.codec.limit, expected, first)
    if expected.normalize:
        values = _normalized(values)
    return Tokens(values, lengths)


def _all_finite(array: NDArray[np.float16]) -> bool:
    """The bits of infinity and NaN lie above those of all numbers of their sign, and integers compare many times faster."""
    infinity = 0x7C00
    return not array.size or (
        int(array.view(np.int16).max()) < infinity and int(array.view(np.uint16).max()) < 0x8000 + infinity
    )


def _lengths(count: int, tokens: int) -> NDArray[np.int32]:
    return np.full(count, tokens, dtype=np.int32)


def _refuse_non_finite(values: NDArray[np.float32], limit: float, expected: Expected, first: int) -> None:
    # Two reductions that NaN and infinity pass through are cheaper than a mask as large as the data.
    if not values.size or max(float(values.max()), -float(values.min())) <= limit:
        return
    bad = np.argwhere(~(np.abs(values) <= limit))
    bad[:, 0] += first
    places = ", ".join(str(tuple(map(int, place))) for place in bad[:3])
    raise NonFiniteError(
        f"{expected.argument}: expected finite numbers up to {limit:.5g} for {expected.codec.name}, "
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


def _is_integer(item: Any) -> bool:
    """numpy integers and zero-dimensional integer tensors; not bool in any form."""
    if isinstance(item, np.generic) or is_torch(item):
        return not getattr(item, "ndim", 0) and "int" in str(item.dtype)
    return type(item) is int


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


def _json(item: Any, number: int, names: set[str]) -> str | None:
    if item is None:
        return None
    if not isinstance(item, Mapping) or not all(isinstance(key, str) for key in item):
        raise TypeError(f"metadata[{number}]: expected a dict with text keys, or None, got {type(item).__name__}")
    try:
        text = json.dumps(dict(item), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
        if "\\u0000" in text and _NUL.search(text):
            raise ValueError("expected text without NUL characters, which can't be compared; remove them")
        if text.count("[") + text.count("{") > MAX_METADATA_DEPTH and _depth(text) > MAX_METADATA_DEPTH:
            raise ValueError(f"expected at most {MAX_METADATA_DEPTH} levels of lists and dicts; flatten it")
        names.update(item)
        return text
    except (ValueError, RecursionError) as error:
        raise ValueError(f"metadata[{number}]: {error}") from None
    except TypeError as error:
        raise TypeError(f"metadata[{number}]: expected JSON values: {error}") from None


def _depth(text: str) -> int:
    """How many lists and objects of a JSON text lie within each other."""
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        depth += (found[1] is not None) - (found[2] is not None)
        deepest = max(deepest, depth)
    return deepest
