"""Lanes that branch apart, and what makes them meet again."""

from __future__ import annotations

import numpy as np
import pytest

from tests import emulator

_PTX = """
.version 8.0
.target sm_80
.address_size 64
.visible .entry kernel(.param .u64 out)
{{
.reg .pred %p<9>;
.reg .b32 %r<20>;
.reg .b64 %w<9>;
mov.u32 %r0, %tid.x;
ld.param.u64 %w0, [out];
mad.wide.u32 %w1, %r0, 4, %w0;
{body}
st.global.u32 [%w1], %r9;
ret;
}}
"""


def _run(body: str, threads: int = 64, **options) -> np.ndarray:
    out = np.full(threads, 0xAAAAAAAA, np.uint32)
    emulator.load(_PTX.format(body=body)).launch("kernel", 1, threads, [out], **options)
    return out


def test_loops_of_different_lengths_meet_again():
    body = """
    mov.u32 %r9, 0; mov.u32 %r1, 0;
    LOOP: setp.ge.u32 %p0, %r1, %r0; @%p0 bra DONE;
    add.u32 %r9, %r9, %r1; add.u32 %r1, %r1, 1; bra LOOP;
    DONE: activemask.b32 %r2; add.u32 %r9, %r9, %r2;
    """
    lanes = np.arange(64)
    np.testing.assert_array_equal(_run(body), (lanes * (lanes - 1) // 2 + 0xFFFFFFFF) & 0xFFFFFFFF)


def test_lanes_wait_for_the_members_of_a_vote():
    body = """
    and.b32 %r1, %r0, 1; setp.eq.u32 %p0, %r1, 0; mov.u32 %r9, 7;
    @%p0 bra EVEN;
    vote.sync.ballot.b32 %r9, %p0, 0xAAAAAAAA; bra DONE;
    EVEN: vote.sync.ballot.b32 %r9, %p0, 0x55555555;
    DONE: bar.warp.sync 0xFFFFFFFF;
    """
    np.testing.assert_array_equal(_run(body), np.where(np.arange(64) % 2, 0, 0x55555555))


def test_a_lane_that_spins_lets_others_of_its_warp_go_on():
    """What the first lane waits for comes from the second, which is further on in the program."""
    body = """
    .shared .b32 flag;
    setp.ne.u32 %p0, %r0, 0; mov.u32 %r9, 1;
    @!%p0 st.volatile.shared.u32 [flag], 0;
    bar.sync 0;
    @%p0 bra OTHERS;
    SPIN: ld.volatile.shared.u32 %r1, [flag]; setp.eq.u32 %p1, %r1, 0; @%p1 bra SPIN;
    mov.u32 %r9, %r1; bra DONE;
    OTHERS: setp.eq.u32 %p2, %r0, 1; mov.u32 %r3, 5; @%p2 st.volatile.shared.u32 [flag], %r3;
    DONE:
    """
    np.testing.assert_array_equal(_run(body, 32), np.where(np.arange(32), 1, 5))


def test_branches_by_index():
    body = """
    LIST: .branchtargets ZERO, ONE, TWO;
    rem.u32 %r1, %r0, 3; mov.u32 %r9, 99;
    brx.idx %r1, LIST;
    ZERO: mov.u32 %r9, 10; bra DONE;
    ONE: mov.u32 %r9, 11; bra DONE;
    TWO: mov.u32 %r9, 12;
    DONE:
    """
    np.testing.assert_array_equal(_run(body), 10 + np.arange(64) % 3)


def test_names_in_nested_scopes():
    body = """
    mov.u32 %r9, 0;
    { .reg .b32 x; mov.u32 x, 3; LAP: add.u32 %r9, %r9, 1; sub.u32 x, x, 1; setp.ne.u32 %p0, x, 0; @%p0 bra LAP; }
    { .reg .b32 x; mov.u32 x, 2; LAP: add.u32 %r9, %r9, 10; sub.u32 x, x, 1; setp.ne.u32 %p0, x, 0; @%p0 bra LAP; }
    """
    assert (_run(body) == 23).all()


@pytest.mark.parametrize(
    ("shuffle", "expected"),
    [
        ("shfl.sync.bfly.b32 %r9, %r0, 5, 31, -1;", lambda lane: lane ^ 5),
        ("shfl.sync.down.b32 %r9, %r0, 3, 31, -1;", lambda lane: np.where(lane + 3 < 32, lane + 3, lane)),
        ("shfl.sync.up.b32 %r9, %r0, 3, 0, -1;", lambda lane: np.where(lane >= 3, lane - 3, lane)),
        ("shfl.sync.idx.b32 %r9, %r0, 6, 0x1807, -1;", lambda lane: lane // 8 * 8 + 6),
        (
            "shfl.sync.down.b32 %r9|%p1, %r0, 1, 0x1C03, -1; selp.b32 %r9, %r9, 100, %p1;",
            lambda lane: np.where(lane % 4 < 3, lane + 1, 100),
        ),
    ],
)
def test_shuffles(shuffle, expected):
    np.testing.assert_array_equal(_run(shuffle, 32), expected(np.arange(32)))


def test_votes_and_reductions():
    lanes = np.arange(32)
    body = "shr.u32 %r1, %r0, 3; match.any.sync.b32 %r9, %r1, -1;"
    np.testing.assert_array_equal(_run(body, 32), 0xFF << (lanes // 8 * 8))
    assert (_run("redux.sync.add.s32 %r9, %r0, -1;", 32) == 496).all()
    assert (_run("redux.sync.max.u32 %r9, %r0, -1;", 32) == 31).all()
    body = "setp.lt.u32 %p0, %r0, 40; vote.sync.all.pred %p1, %p0, -1; selp.b32 %r9, 1, 0, %p1;"
    np.testing.assert_array_equal(_run(body), np.arange(64) < 32)
    body = "elect.sync %r1|%p1, 0xFFFFFFFF; selp.b32 %r9, 1, 0, %p1;"
    assert _run(body).sum() == 2


def test_barriers_for_some_of_the_warps():
    """Two warps each meet at barriers of their own, and vote at one of all."""
    body = """
    shr.u32 %r1, %r0, 6; add.u32 %r1, %r1, 1;
    bar.sync %r1, 64;
    setp.lt.u32 %p0, %r0, 50;
    barrier.cta.red.popc.u32 %r9, 0, %p0;
    """
    assert (_run(body, 128) == 50).all()


def test_threads_that_are_done_are_not_waited_for():
    body = "setp.gt.u32 %p0, %r0, 31; mov.u32 %r9, 4; st.global.u32 [%w1], %r9; @%p0 exit; bar.sync 0; mov.u32 %r9, 5;"
    np.testing.assert_array_equal(_run(body), np.where(np.arange(64) > 31, 4, 5))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "setp.lt.u32 %p0, %r0, 16; @%p0 bra SKIP; bar.sync 0; SKIP: bar.warp.sync -1; mov.u32 %r9, 0;",
            "deadlock.*(waits for lanes)",
        ),
        ("setp.lt.u32 %p0, %r0, 32; @%p0 bra SKIP; bar.sync 1, 64; SKIP: bar.sync 0;", "deadlock"),
        ("setp.lt.u32 %p0, %r0, 32; @%p0 bra WAIT; bar.arrive 1, 96; exit; WAIT: bar.sync 1, 96;", "and the block has 64"),
        ("setp.lt.u32 %p0, %r0, 32; @%p0 bra WAIT; bar.arrive 1, 64; exit; WAIT: bar.sync 1, 32;", "is given"),
        ("bar.arrive 1, 64; bar.sync 1, 64;", "again before it has ended"),
        ("bar.sync 1, 60;", "multiple of 32"),
        ("SPIN: nanosleep.u32 100; bra SPIN;", "deadlock"),
        ("SPIN: bra SPIN;", "did not end within"),
        ("shfl.sync.bfly.b32 %r9, %r0, 1, 31, 0xFFFF;", "not in its own member mask"),
        ("trap;", "executes trap"),
        ("popc.b64.what %r9, %w0;", "not emulated"),
        ("frobnicate.b32 %r9, %r0;", "the instruction frobnicate is not emulated"),
    ],
)
def test_what_must_not_be(body, message):
    with pytest.raises(emulator.EmulationError, match=f"(?s){message}.*line"):
        _run(body, limit=100_000)
