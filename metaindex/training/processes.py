"""What several processes do together. One process, without torch.distributed, needs none of it.

Each process has its own queries and their documents. The loss of all of them is the mean of the processes' losses, so its
gradient is the mean of theirs, given that what was gathered carries gradients back to where it came from.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import distributed


def processes() -> int:
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    return distributed.get_rank() if _together() else 0


def gathered(values: torch.Tensor) -> torch.Tensor:
    """``values`` [B, ...] of all processes [processes * B, ...], in the order of their ranks, with gradients where it has them.

    The shapes are the same in every process. A gradient comes back as the sum over the processes.
    """
    if not _together():
        return values
    function: Any = _Gathered
    found: torch.Tensor = function.apply(values)
    return found


def averaged(values: torch.Tensor) -> torch.Tensor:
    """The mean over processes, without gradients."""
    if not _together():
        return values
    total = values.detach().clone()
    distributed.all_reduce(total)
    return total / processes()


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Every gradient becomes its mean over processes. A parameter that no process used keeps having none."""
    if not _together():
        return
    every = list(parameters)
    used = torch.tensor([each.grad is not None for each in every], dtype=torch.int32, device=every[0].device)
    distributed.all_reduce(used)  # images may be in the batch of one process only
    for parameter, count in zip(every, used.tolist()):
        if count:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= processes()


def wait_for_all() -> None:
    if _together():
        distributed.barrier()


class _Gathered(torch.autograd.Function):
    """torch.distributed.nn has one, which is deprecated and wrong where it was tried, with gloo on torch 2.13."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        found = [torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(processes())]
        distributed.all_gather(found, values.contiguous())
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.chunk(processes())[rank()]


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
