"""Boxes that the copy engine brings: their place in the tensor, zeros outside, swizzles; and what its callers must do."""

from __future__ import annotations

import numpy as np
import pytest

from tests import emulator
from tests.emulator import TensorMap

_PTX = """
.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 landing[];
.visible .entry fetch(.param .align 64 .b8 map[128], .param .u64 out, .param .u32 x, .param .u32 y, .param .u32 z,
    .param .u32 bytes, .param .u32 offset)
{{
.shared .align 8 .b64 barrier;
.reg .pred %p<4>; .reg .b32 %r<20>; .reg .b64 %w<6>;
mov.u32 %r0, %tid.x; setp.ne.u32 %p0, %r0, 0;
ld.param.u32 %r1, [x]; ld.param.u32 %r2, [y]; ld.param.u32 %r3, [z]; ld.param.u32 %r4, [bytes]; ld.param.u32 %r5, [offset];
mov.u32 %r6, barrier; mov.u32 %r7, landing; add.u32 %r7, %r7, %r5;
mov.b64 %w0, map; cvta.param.u64 %w0, %w0;
@%p0 bra MADE;
mbarrier.init.shared.b64 [%r6], 1; fence.mbarrier_init.release.cluster;
MADE: bar.sync 0;
@%p0 bra ISSUED;
mbarrier.arrive.expect_tx.shared.b64 %w1, [%r6], %r4;
cp.async.bulk.tensor.{axes}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%r7], [%w0, {{{coordinates}}}], [%r6];
ISSUED:
AGAIN: mbarrier.try_wait.parity.shared.b64 %p1, [%r6], 0; @!%p1 bra AGAIN;
ld.param.u64 %w2, [out];
mov.u32 %r8, %r0;
COPY: setp.ge.u32 %p2, %r8, %r4; @%p2 bra DONE;
add.u32 %r9, %r7, %r8; ld.shared.u8 %r10, [%r9]; cvt.u64.u32 %w3, %r8; add.u64 %w3, %w2, %w3; st.global.u8 [%w3], %r10;
add.u32 %r8, %r8, 32; bra COPY;
DONE: ret;
}}
"""


def _fetch(tensor: np.ndarray, box: tuple[int, ...], corner: tuple[int, ...], swizzle: int = 0, offset: int = 0) -> np.ndarray:
    """The bytes of shared memory where the box at ``corner`` landed; both in the order of the tensor's axes."""
    out = np.zeros(int(np.prod(box)) * tensor.itemsize, np.uint8)
    inner_first = [*corner[::-1], 0, 0][:3]
    names = ["%r1", "%r2", "%r3", "0", "0"][: tensor.ndim]
    module = emulator.load(_PTX.format(axes=tensor.ndim, coordinates=", ".join(names)))
    args = [TensorMap.of(tensor, box, swizzle), out, *inner_first, out.nbytes, offset]
    module.launch("fetch", 1, 32, args, shared_bytes=out.nbytes + offset, memory=[tensor])
    return out


def _cut(tensor: np.ndarray, box: tuple[int, ...], corner: tuple[int, ...]) -> np.ndarray:
    """The box, with zeros where the tensor has nothing."""
    found = np.zeros(box, tensor.dtype)
    for at in np.ndindex(*box):
        place = np.add(at, corner)
        if (place >= 0).all() and (place < tensor.shape).all():
            found[at] = tensor[tuple(place)]
    return found


@pytest.mark.parametrize(
    ("shape", "box", "corner"),
    [
        ((500,), (64,), (100,)),
        ((500,), (64,), (460,)),
        ((20, 48), (8, 16), (4, 16)),
        ((20, 40), (8, 16), (15, 30)),
        ((20, 40), (8, 16), (-3, -5)),
        ((7, 9, 32), (3, 4, 16), (5, 6, 24)),
        ((7, 9, 32), (3, 4, 16), (7, 0, 0)),
        ((2, 3, 4, 16), (2, 2, 2, 8), (0, 1, 2, 3)),
        ((2, 2, 3, 4, 16), (1, 2, 2, 2, 8), (0, 0, 1, 2, 3)),
    ],
)
def test_boxes(shape, box, corner):
    tensor = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    np.testing.assert_array_equal(_fetch(tensor, box, corner).view(np.uint16).reshape(box), _cut(tensor, box, corner))


@pytest.mark.parametrize("swizzle", [32, 64, 128])
@pytest.mark.parametrize("offset", [0, 128, 640])
def test_swizzles(swizzle, offset):
    """Within 8 rows of 128 bytes of shared memory, 16-byte parts are exchanged by the number of the row."""
    tensor = np.arange(64 * 256, dtype=np.uint32).astype(np.uint8).reshape(64, 256)
    tensor[:, 0] = np.arange(64)
    box = (40, swizzle)
    found = _fetch(tensor, box, (10, 32), swizzle, offset)
    plain = _cut(tensor, box, (10, 32)).ravel()
    # A row of 128 bytes holds 128 / swizzle rows of the box; its number is that of the address, whatever the box starts at.
    expected = np.zeros_like(plain)
    for byte in range(len(plain)):
        address = offset + byte
        part, row = address // 16, address // 128
        expected[(part ^ row % (swizzle // 16)) * 16 + byte % 16 - offset] = plain[byte]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"address": 8}, "an address that is a multiple of 16"),
        ({"strides": (40,)}, "strides that are multiples of 16"),
        ({"box": (300, 8)}, "boxes of 1 to 256 elements"),
        ({"box": (4, 8)}, "box rows that are multiples of 16 bytes"),
        ({"box": (128, 8), "swizzle": 128}, "no wider than the swizzle"),
        ({"dims": (64,)}, "a stride for each axis but the first"),
    ],
)
def test_maps_that_the_driver_refuses(change, message):
    arguments = {"address": 4096, "itemsize": 2, "dims": (64, 10), "strides": (128,), "box": (64, 8)}
    with pytest.raises(ValueError, match=message):
        TensorMap(**{**arguments, **change})


def test_misuse_of_boxes():
    tensor = np.zeros((64, 64), np.uint16)
    with pytest.raises(emulator.EmulationError, match="multiple of 128 bytes"):
        _fetch(tensor, (8, 64), (0, 0), 128, offset=64)
    three = emulator.load(_PTX.format(axes=3, coordinates="%r1, %r2, %r3"))
    two = emulator.load(_PTX.format(axes=2, coordinates="%r1, %r2"))
    box = TensorMap.of(tensor, (8, 64))
    arguments = [box, np.zeros(1024, np.uint8), 0, 0, 0, 1024, 0]
    with pytest.raises(emulator.EmulationError, match="a tensor of 2 axes is copied as one of 3"):
        three.launch("fetch", 1, 32, arguments, shared_bytes=1024)
    with pytest.raises(emulator.EmulationError, match="which no buffer holds"):
        two.launch("fetch", 1, 32, arguments, shared_bytes=1024)
    with pytest.raises(emulator.EmulationError, match="there is no tensor map"):
        two.launch("fetch", 1, 32, [bytes(128), *arguments[1:]], shared_bytes=1024)
    arguments = [box, np.zeros(2048, np.uint8), 0, 0, 0, 2048, 0]
    with pytest.raises(
        emulator.EmulationError, match=r"deadlock.*(?s:.)*1024 bytes outstanding|-1024 bytes outstanding|ended while"
    ):
        two.launch("fetch", 1, 32, arguments, shared_bytes=2048, memory=[tensor])


_STORE = """
.version 8.0
.target sm_90a
.address_size 64
.extern .shared .align 128 .b8 staged[];
.visible .entry put(.param .align 64 .b8 map[128], .param .u32 x, .param .u32 y)
{{
.reg .pred %p0; .reg .b32 %r<9>; .reg .b64 %w0;
mov.u32 %r0, %tid.x; mov.u32 %r1, staged; mad.lo.u32 %r2, %r0, 4, %r1; st.shared.u32 [%r2], %r0;
{fence}
bar.sync 0;
ld.param.u32 %r3, [x]; ld.param.u32 %r4, [y];
mov.b64 %w0, map; setp.ne.u32 %p0, %r0, 0; @%p0 bra DONE;
cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%w0, {{%r3, %r4}}], [%r1];
cp.async.bulk.commit_group;
{wait}
{after}
DONE: ret;
}}
"""
_FENCE, _WAIT = "fence.proxy.async.shared::cta;", "cp.async.bulk.wait_group 0;"


def _put(fence: str = _FENCE, wait: str = _WAIT, after: str = "") -> np.ndarray:
    tensor = np.full((10, 12), 99, np.uint32)
    module = emulator.load(_STORE.format(fence=fence, wait=wait, after=after))
    module.launch("put", 1, 64, [TensorMap.of(tensor, (8, 8)), 8, 4], shared_bytes=256, memory=[tensor])
    return tensor


def test_boxes_are_stored():
    expected = np.full((10, 12), 99, np.uint32)
    expected[4:, 8:] = np.arange(64).reshape(8, 8)[:6, :4]
    np.testing.assert_array_equal(_put(), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fence": ""}, "with no fence.proxy.async since"),
        ({"wait": "", "after": "st.shared.u32 [%r1], 5;"}, "while the operation issued at line"),
        ({"wait": ""}, "ends while what it stores is under way"),
    ],
)
def test_what_stores_of_boxes_need(change, message):
    with pytest.raises(emulator.EmulationError, match=message):
        _put(**change)
