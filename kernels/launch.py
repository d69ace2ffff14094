"""From tensors to launches: which kernel, specialised for what, on how many programs.

A launch is a value; running it is all that touches the device.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton

from metaindex.device.operations import DeviceQueries, Hits, Output
from metaindex.kernels import tiles
from metaindex.kernels.arguments import Asked, Found, Table

if TYPE_CHECKING:
    from torch import Tensor

    from metaindex.device.table import DeviceTable

_REGISTERS = 65536  # of a multiprocessor


class Launch(NamedTuple):
    """``kernel`` on ``programs`` programs; ``options`` are Triton's."""

    kernel: Any
    programs: int
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def run(self, device: torch.device) -> None:
        """Queue it on the device's current stream."""
        if device.type != "cuda":
            self.kernel[(self.programs,)](*self.arguments, **self.options)
            return
        with torch.cuda.device(device):
            self.kernel[(self.programs,)](*self.arguments, **self.options)


def options(warps: int, stages: int = 1, programs: int = 1) -> dict[str, Any]:
    """Launch options; registers are bounded so that ``programs`` fit a multiprocessor. Triton 3.9 wants to be told whether
    products and sums may be fused, as they always were."""
    bound = {} if programs == 1 else {"maxnreg": _REGISTERS // (32 * warps * programs)}
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True, **bound}


def interpreted(kernel: Any) -> bool:
    return not isinstance(kernel, triton.JITFunction)


@lru_cache
def card(device: torch.device) -> tiles.Card:
    """What is known of a device before it is asked anything; for the CPU, where kernels are interpreted, as little as helps."""
    if device.type != "cuda":
        return tiles.Card(tiles.INTERPRETER, 1)
    properties = torch.cuda.get_device_properties(device)
    return tiles.Card(10 * properties.major + properties.minor, properties.multi_processor_count)


def problem(table: DeviceTable, queries: DeviceQueries, r_c: int, allow: Tensor | None, batch: int) -> tiles.Problem:
    return tiles.Problem(
        table.codec, table.dim, queries.codes.shape[1], r_c, batch, indirect=not table.full or allow is not None
    )


def table_group(table: DeviceTable, allow: Tensor | None) -> Table:
    return Table(
        table.token_codes,
        table.token_scales,
        table.token_widths,
        table.first_rows,
        None if table.full else table.lengths,
        table.places,
        allow,
    )


def asked_group(queries: DeviceQueries) -> Asked:
    return Asked(queries.codes, queries.scales, queries.lengths)


def found_group(out: Output) -> tuple[Found, int]:
    """The group, and how far apart the rows of its matrix are."""
    if isinstance(out, Hits):
        return Found(None, out.keys, out.counts, out.thresholds), out.keys.stride(0)
    return Found(out, None, None, None), out.stride(0)
