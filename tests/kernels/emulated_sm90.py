"""The Hopper scan on tensors of the CPU, its kernels run by the emulator as its own host code launches them."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from metaindex.device.operations import DeviceQueries, Hits, Output
from metaindex.device.table import DeviceTable
from tests.emulator.host_code import HostCode
from tests.kernels.plain import PlainOperations

_ROOT = Path(__file__).parents[2]
_CODECS = ("float32", "float16", "bfloat16", "int8")
_BOXES_BYTES = 64  # at least what says where the boxes lie


class EmulatedSm90Operations(PlainOperations):
    """``maxsim_scan`` in the emulator; the other operations, which the Hopper kernels leave to others, in plain torch.

    Args:
        options: how the emulator runs, see ``Module.launch`` and ``HostCode.device``.
    """

    name = "emulated sm90"

    def __init__(self, root: Path = _ROOT, **options) -> None:
        cuda = root / "csrc" / "cuda"
        sources = [
            Path(__file__).with_name("emulated_sm90.cpp"),
            cuda / "maxsim_scan_sm90.cu",
            *sorted((cuda / "sm90").glob("*.cu")),
        ]
        self._code = HostCode("sm90", sources, include=[root / "csrc" / "include", cuda], architectures=["90a"])
        self._options = options
        self._library = self._code.library()
        self._library.boxes_bytes.restype = ctypes.c_int64
        self._library.make_boxes.restype = self._library.scan.restype = ctypes.c_char_p

    def maxsim_scan(self, table: DeviceTable, queries: DeviceQueries, r_c, span, allow, out: Output) -> None:
        size = self._library.run_size(r_c)
        runs = table.tiles(size, span)
        hits = out if isinstance(out, Hits) else None
        scores = None if isinstance(out, Hits) else out
        levels, kept = _levels(table)
        memory = _aligned(self._library.boxes_bytes(levels, r_c), 128)
        boxes = ctypes.create_string_buffer(_BOXES_BYTES)
        reached = [memory, *kept, *map(_array, (*table.held, *_tensors(table), *_tensors(queries), runs))]
        reached += [_array(one) for one in (allow, scores, *([] if hits is None else _tensors(hits))) if one is not None]
        with self._code.device("90a", [one for one in reached if one.size], **self._options):
            _checked(self._library.make_boxes(levels, r_c, ctypes.c_void_p(memory.ctypes.data), boxes))
            _checked(
                self._library.scan(
                    _numbers(_table(table)),
                    _numbers([*map(_address, (queries.codes, queries.scales, queries.lengths)), *queries.codes.shape[:2]]),
                    r_c,
                    _numbers([_address(runs), len(runs), size]),
                    ctypes.c_void_p(_address(allow)),
                    _numbers(_output(scores, hits)),
                    boxes,
                )
            )


def _checked(error: bytes | None) -> None:
    if error is not None:
        raise RuntimeError(error.decode())


def _levels(table: DeviceTable) -> tuple[ctypes.Array, list[NDArray]]:
    """What the host knows of the levels, and the arrays that hold it."""
    starts, widths = (np.array(part, np.int32) for part in table.shape)
    lengths = np.split(table.lengths.numpy(), np.cumsum(table.segment_rows)[:-1])
    rows = np.array([[np.count_nonzero(part > start) for start in starts] for part in lengths], np.int64)
    codes = table.codes.numpy()
    numbers = [codes.ctypes.data, rows.ctypes.data, starts.ctypes.data, widths.ctypes.data, *codes.shape, table.dim]
    return _numbers([*numbers, _CODECS.index(table.codec)]), [codes, rows, starts, widths]


def _table(table: DeviceTable) -> list[int]:
    tensors = (
        table.codes,
        table.scales,
        table.first_rows,
        table.lengths,
        table.starts,
        table.widths,
        table.token_levels,
        table.places,
    )
    numbers = [len(table.segment_rows), len(table.shape[0]), table.tokens, table.dim, table.rows]
    return [*map(_address, tensors), *numbers, _CODECS.index(table.codec), table.full]


def _output(scores: torch.Tensor | None, hits: Hits | None) -> list[int]:
    if scores is not None:
        return [_address(scores), scores.shape[1], 0, 0, 0, 0]
    assert hits is not None
    return [0, 0, *map(_address, (hits.keys, hits.counts, hits.thresholds)), hits.keys.shape[1]]


def _tensors(holder: object) -> list[torch.Tensor]:
    return [value for value in vars(holder).values() if isinstance(value, torch.Tensor)]


def _array(tensor: torch.Tensor) -> NDArray:
    return tensor.view(torch.uint8).numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _numbers(values) -> ctypes.Array:
    return (ctypes.c_int64 * len(values))(*map(int, values))


def _aligned(nbytes: int, alignment: int) -> NDArray[np.uint8]:
    buffer = np.zeros(nbytes + alignment, np.uint8)
    first = -buffer.ctypes.data % alignment
    return buffer[first : first + nbytes]
