"""topk: the k largest keys of each query, for any k, without telling the host how many keys there are.

Lists of keys become fewer and longer: at first every key is a list, at last there is one, and none keeps more than k. Keys
differ, so a key's place in a list that several become is how many of their keys are larger. While the lists are short, all
keys of a tile are compared with each other; lists that would fill a tile by themselves are sorted, and bisection counts.

A program whose lists are empty ends at once. So a block of hits, few of which were above the threshold, costs some launches
whatever its capacity. torch.topk would read all of the capacity in several passes, up to 64 MB of keys that mostly are not
there, and before that they would have to be blotted out. tl.sort takes about as many steps for a tile four times as large, but
Triton a second to compile it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import triton
import triton.language as tl

from metaindex.kernels import tiles
from metaindex.kernels.launch import Launch, options

if TYPE_CHECKING:
    from torch import Tensor

LISTS = 16
"""Sorted lists that become one at a time."""
_LISTS = tl.constexpr(LISTS)
_PART = tl.constexpr(32)  # keys of a tile that are compared with all of it at a time


class Sizes(NamedTuple):
    """``tile`` keys are compared with each other; ``block`` keys of a sorted list are placed by one program."""

    tile: int
    block: int


@triton.jit
def _held(counts, query, list, length, span):
    """How many keys each ``list`` of a query has. It stands for ``span`` of the query's keys and keeps ``length`` of them."""
    count = tl.load(counts + query).to(tl.int64)
    return tl.minimum(tl.maximum(count - list.to(tl.int64) * span, 0), length).to(tl.int32)


@triton.jit(do_not_specialize=["stride", "kept_stride", "groups", "fan", "length", "span", "kept"])
def rank_kernel(
    keys,
    counts,
    kept_keys,
    stride: tl.int64,
    kept_stride: tl.int64,
    groups: tl.int32,
    fan: tl.int32,
    length: tl.int32,
    span: tl.int64,
    kept: tl.int32,
    TILE: tl.constexpr,
):
    """One program: ``fan`` lists of one query, in any order, become one of ``kept`` keys, falling.

    keys [B, lists * length], kept_keys [B, groups * kept].
    """
    program = tl.program_id(0)
    query, group = (program // groups).to(tl.int64), program % groups
    first = group * fan
    keys += query * stride + first.to(tl.int64) * length
    if _held(counts, query, first, length, span) > 0:
        number = tl.arange(0, TILE)
        there = (number < fan * length) & (number % length < _held(counts, query, first + number // length, length, span))
        key = tl.load(keys + number, mask=there, other=0)
        larger = tl.zeros([TILE, _PART], tl.int32)
        for start in range(0, TILE, _PART):
            part = start + tl.arange(0, _PART)
            others = (part < fan * length) & (part % length < _held(counts, query, first + part // length, length, span))
            other = tl.load(keys + part, mask=others, other=-(2**63))
            larger += (other[None, :] > key[:, None]).to(tl.int32)
        place = tl.sum(larger, axis=1)
        tl.store(kept_keys + query * kept_stride + group.to(tl.int64) * kept + place, key, mask=there & (place < kept))


@triton.jit(do_not_specialize=["stride", "kept_stride", "lists", "blocks", "steps", "length", "span", "kept"])
def merge_kernel(
    keys,
    counts,
    kept_keys,
    stride: tl.int64,
    kept_stride: tl.int64,
    lists: tl.int32,
    blocks: tl.int32,
    steps: tl.int32,
    length: tl.int32,
    span: tl.int64,
    kept: tl.int32,
    BLOCK: tl.constexpr,
):
    """One program: a block of one of a query's lists, all falling, finds its places in the list that ``LISTS`` of them become.
    ``steps`` halve ``length`` to nothing.

    keys [B, lists * length], kept_keys [B, ceil(lists / LISTS) * kept].
    """
    program = tl.program_id(0)
    block, program = program % blocks, program // blocks
    own, query = program % lists, (program // lists).to(tl.int64)
    held = _held(counts, query, own, length, span)
    if block * BLOCK < held:
        number = block * BLOCK + tl.arange(0, BLOCK)
        there = number < held
        keys += query * stride
        key = tl.load(keys + own.to(tl.int64) * length + number, mask=there, other=0)
        group = own // _LISTS
        others = group * _LISTS + tl.arange(0, _LISTS)
        first = others.to(tl.int64) * length
        # What comes before `low` is larger, what comes from `high` on is not; in its own list a key finds itself.
        low = tl.zeros([BLOCK, _LISTS], tl.int32)
        high = low + _held(counts, query, others, length, span)[None, :]
        for _ in range(steps):
            middle = (low + high) // 2
            open = low < high
            larger = tl.load(keys + first[None, :] + middle, mask=open, other=0) > key[:, None]
            low = tl.where(open & larger, middle + 1, low)
            high = tl.where(open & ~larger, middle, high)
        place = tl.sum(low, axis=1)
        tl.store(kept_keys + query * kept_stride + group.to(tl.int64) * kept + place, key, mask=there & (place < kept))


def launches(card: tiles.Card, keys: Tensor, counts: Tensor, kept_keys: Tensor) -> Iterator[Launch]:
    """``Operations.topk`` into ``kept_keys`` int64 [B, k], full of ``MISSING``, as launches to run one after the other."""
    (batch, lists), k = keys.shape, kept_keys.shape[1]
    length = span = 1
    tile, block = _sizes(card, lists)
    while batch and lists and k:
        merging = 4 * length > tile
        fan = LISTS if merging else tile // length
        groups, kept = triton.cdiv(lists, fan), min(k, fan * length)
        target = kept_keys if groups == 1 else keys.new_empty(batch, groups * kept)
        common = (keys, counts, target, keys.stride(0), target.stride(0))
        if merging:
            blocks = triton.cdiv(length, block)
            sizes = (lists, blocks, length.bit_length(), length, span, kept, block)
            yield Launch(merge_kernel, batch * lists * blocks, (*common, *sizes), options(4))
        else:
            yield Launch(rank_kernel, batch * groups, (*common, groups, fan, length, span, kept, tile), options(8))
        if groups == 1:
            return
        keys, lists, length, span = target, groups, kept, span * fan


def _sizes(card: tiles.Card, count: int) -> Sizes:
    """On a GPU always the same. Interpreted, few programs, since each costs milliseconds, and no larger than they need be."""
    if card.capability != tiles.INTERPRETER:
        return Sizes(256, 64)
    return Sizes(min(1024, max(2 * LISTS, triton.next_power_of_2(count))), 4096)
