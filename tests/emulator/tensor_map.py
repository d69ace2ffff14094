"""What stands for a CUtensorMap: a tensor in global memory and how it is cut into boxes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NBYTES = 128
_MARK = 0x70614D726F736E54  # as the core has it
_LAYOUT = "<QQ4Q5I5H5BBBB"
_SWIZZLES = (0, 32, 64, 128)


@dataclass(frozen=True)
class TensorMap:
    """The arguments of cuTensorMapEncodeTiled, innermost axis first, without interleaving, zeros outside.

    Attributes:
        address: of the first element.
        itemsize: bytes of an element.
        dims: how many elements along each axis, 1 to 5 axes.
        strides: bytes between neighbours along each axis but the first.
        box: how many elements of each axis a box spans; every ``steps``-th of them is copied.
        swizzle: 0, 32, 64 or 128 bytes.

    Raises:
        ValueError: the driver would refuse them.
    """

    address: int
    itemsize: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int = 0
    steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        rank = len(self.dims)
        rules = {
            "1 to 5 axes": 1 <= rank <= 5,
            "a stride for each axis but the first": len(self.strides) == rank - 1,
            "a box of as many axes": len(self.box) == rank,
            "steps for each axis or none": len(self.steps) in (0, rank),
            "elements of 1, 2, 4 or 8 bytes": self.itemsize in (1, 2, 4, 8),
            "an address that is a multiple of 16": self.address % 16 == 0,
            "dims from 1 to 2**32 - 1": all(0 < dim < 1 << 32 for dim in self.dims),
            "strides that are multiples of 16 below 2**40": all(s % 16 == 0 and 0 <= s < 1 << 40 for s in self.strides),
            "boxes of 1 to 256 elements": all(1 <= extent <= 256 for extent in self.box),
            "steps of 1 to 8": all(1 <= step <= 8 for step in self.steps),
            "box rows that are multiples of 16 bytes": self.box[0] * self.itemsize % 16 == 0,
            "a swizzle of 0, 32, 64 or 128 bytes": self.swizzle in _SWIZZLES,
            "box rows no wider than the swizzle": not self.swizzle or self.box[0] * self.itemsize <= self.swizzle,
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"a tensor map needs {rule}: {self}")

    @classmethod
    def of(cls, array: NDArray, box: tuple[int, ...], swizzle: int = 0) -> TensorMap:
        """A map of a whole array; ``box`` in the order of its axes, which is outermost first."""
        if array.strides[-1] != array.itemsize:
            raise ValueError("the innermost axis is not contiguous")
        dims, strides = array.shape[::-1], array.strides[-2::-1]
        return cls(array.ctypes.data, array.itemsize, dims, strides, box[::-1], swizzle)

    def encode(self) -> bytes:
        """The 128 bytes that a kernel is given."""
        rank = len(self.dims)

        def padded(values: tuple[int, ...], count: int) -> tuple[int, ...]:
            return (*values, *(0,) * (count - len(values)))

        packed = struct.pack(
            _LAYOUT,
            _MARK,
            self.address,
            *padded(self.strides, 4),
            *padded(self.dims, 5),
            *padded(self.box, 5),
            *padded(self.steps or (1,) * rank, 5),
            rank,
            self.itemsize,
            self.swizzle,
        )
        return packed.ljust(NBYTES, b"\0")


def encoded(maps: list[TensorMap]) -> NDArray[np.uint8]:
    """Maps one behind another at an address that tensor maps may have: [len(maps), 128]."""
    buffer = np.zeros(len(maps) * NBYTES + 64, np.uint8)
    first = -buffer.ctypes.data % 64
    found = buffer[first : first + len(maps) * NBYTES].reshape(-1, NBYTES)
    for row, one in zip(found, maps):
        row[:] = np.frombuffer(one.encode(), np.uint8)
    return found
