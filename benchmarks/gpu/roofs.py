"""What the card can do, measured: how fast memory is read, matrices are multiplied and the bus is crossed."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.card import AnyCard, DryCard, card
from benchmarks.gpu.child import Rows, child
from benchmarks.gpu.floors import Rates
from metaindex.codecs import CODECS


@dataclass(frozen=True)
class Sizes:
    read_bytes: int
    side: int  # of the square matrices
    bus_bytes: int
    calls: int


FULL, BRIEF, DRY = Sizes(8 << 30, 8192, 1 << 30, 20), Sizes(2 << 30, 8192, 0, 8), Sizes(1 << 16, 32, 1 << 12, 2)


def sizes(card: AnyCard, brief: bool) -> Sizes:
    """``brief``: what is measured beside every race."""
    if isinstance(card, DryCard):
        return DRY
    return BRIEF if brief else FULL


def measure(card: AnyCard, codecs: Iterable[str], *, brief: bool = False) -> Rates:
    """The rates of memory and of the products that ``codecs`` need; not ``brief``: those of the bus as well."""
    size = sizes(card, brief)
    rates = _reads(card, size)
    for codec in codecs:
        rates[f"{codec}_gops"] = _products(card, codec, size)
    return rates if brief else rates | _bus(card, size)


def best(one: Rates, other: Rates) -> Rates:
    """The better of two measurements of each rate: a neighbour can only make a card look slower."""
    return {name: max(one.get(name, 0.0), other.get(name, 0.0)) for name in one | other}


def _rate(card: AnyCard, call: Callable[[], Any], amount: float, calls: int) -> float:
    """``amount`` over the median time, in 1e9 a second."""
    call()
    return amount / statistics.median(card.seconds(call) for _ in range(calls)) / 1e9


def _reads(card: AnyCard, size: Sizes) -> Rates:
    """The best of torch's sum and, where Triton is, a kernel that only reads, in several widths."""
    count = int(min(size.read_bytes, card.free_bytes() // 2)) // 4
    values = torch.randn(count, device=card.device)
    found = {"torch_sum_gbs": _rate(card, values.sum, 4 * count, size.calls)}
    copied = torch.empty_like(values)
    found["copy_gbs"] = _rate(card, lambda: copied.copy_(values), 8 * count, size.calls)
    if not isinstance(card, DryCard):
        try:
            found["triton_read_gbs"] = _triton_read(card, values.view(torch.int32), size)
        except Exception as error:  # torch's own sum stays as the roof
            print(f"no Triton read: {type(error).__name__}: {error}", file=sys.stderr)
    return found | {"read_gbs": max(found.get("triton_read_gbs", 0.0), found["torch_sum_gbs"])}


def _triton_read(card: AnyCard, values: torch.Tensor, size: Sizes) -> float:
    from benchmarks.gpu.read import read

    processors = card.properties.multi_processor_count  # type: ignore[union-attr]
    found = 0.0
    for programs in (4 * processors, 8 * processors, 16 * processors):
        sums = torch.empty(programs, dtype=torch.int32, device=card.device)
        nbytes = read(values, sums, programs)
        found = max(found, _rate(card, lambda sums=sums, n=programs: read(values, sums, n), nbytes, size.calls))
    return found


def _products(card: AnyCard, codec: str, size: Sizes) -> float:
    """cuBLAS on random numbers, both sides with the inner dimension last, as queries and documents have it."""
    n = size.side
    if codec == "int8":
        left, right = (torch.randint(-127, 128, (n, n), dtype=torch.int8, device=card.device) for _ in range(2))
        return _rate(card, lambda: torch._int_mm(left, right.t()), 2.0 * n**3, size.calls)
    dtype = getattr(torch, codec)
    left, right = (torch.randn((n, n), device=card.device).to(dtype) for _ in range(2))
    return _rate(card, lambda: left @ right.t(), 2.0 * n**3, size.calls)


def _bus(card: AnyCard, size: Sizes) -> Rates:
    there = torch.empty(size.bus_bytes, dtype=torch.uint8, device=card.device)
    pageable = torch.ones(size.bus_bytes, dtype=torch.uint8)
    pinned = pageable if isinstance(card, DryCard) else pageable.pin_memory()
    copies = {
        "to_device_gbs": lambda: there.copy_(pinned, non_blocking=True),
        "to_host_gbs": lambda: pinned.copy_(there, non_blocking=True),
        "to_device_pageable_gbs": lambda: there.copy_(pageable),
    }
    return {name: _rate(card, copy, size.bus_bytes, 5) for name, copy in copies.items()}


def _rows(options: argparse.Namespace) -> Rows:
    return [{"roofs": measure(card(options.dry_run), CODECS)}]


if __name__ == "__main__":
    raise SystemExit(child(__doc__, _rows))
