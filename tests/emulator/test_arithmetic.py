"""Instructions that compute one number from others, lane by lane, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.emulator.elementwise import elementwise

_EDGES = [
    0,
    1,
    2,
    3,
    7,
    31,
    32,
    127,
    128,
    255,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFE,
    0xFFFFFFFF,
    0xDEADBEEF,
]
_INTEGERS = {"u16": np.uint16, "s16": np.int16, "u32": np.uint32, "s32": np.int32, "u64": np.uint64, "s64": np.int64}


def _pairs(dtype) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of edge cases and some random numbers, as bits of ``dtype``."""
    random = np.random.default_rng(5).integers(0, 1 << 63, 8, np.uint64)
    edges = np.concatenate([np.array(_EDGES, np.uint64), random])
    bits = edges.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    a, b = np.meshgrid(bits, bits)
    return a.ravel(), b.ravel()


def _exact(values: np.ndarray) -> np.ndarray:
    return values.astype(object)


def _wrapped(values: np.ndarray, dtype) -> np.ndarray:
    bits = 8 * np.dtype(dtype).itemsize
    return np.array([int(value) & (1 << bits) - 1 for value in values], f"u{bits // 8}").view(dtype)


@pytest.mark.parametrize("name", _INTEGERS)
def test_integer_arithmetic(name):
    dtype = _INTEGERS[name]
    a, b = _pairs(dtype)
    bits = 8 * np.dtype(dtype).itemsize
    x, y = _exact(a), _exact(b)
    expected = {
        "add": x + y,
        "sub": x - y,
        "mul.lo": x * y,
        "mul.hi": np.array([int(one) >> bits for one in x * y], object),
        "min": np.minimum(x, y),
        "max": np.maximum(x, y),
    }
    for opcode, values in expected.items():
        found = elementwise(f"{opcode}.{name} %out, %a, %b;", dtype, a, b)
        np.testing.assert_array_equal(found, _wrapped(values, dtype), opcode)
    divisible = b != 0
    for opcode in ("div", "rem"):
        found = elementwise(f"{opcode}.{name} %out, %a, %b;", dtype, a, b)[divisible]
        quotient = np.array(
            [abs(int(p)) // abs(int(q)) * (1 if (p < 0) == (q < 0) else -1) for p, q in zip(x[divisible], y[divisible])]
        )
        values = quotient if opcode == "div" else x[divisible] - quotient.astype(object) * y[divisible]
        np.testing.assert_array_equal(found, _wrapped(values, dtype), opcode)


@pytest.mark.parametrize("name", ["u16", "s16", "u32", "s32"])
def test_wide_products(name):
    dtype = _INTEGERS[name]
    wide = (
        np.dtype(dtype.__name__.replace("16", "64").replace("32", "64")).type
        if "32" in name
        else {"u": np.uint32, "s": np.int32}[name[0]]
    )
    a, b = _pairs(dtype)
    c = a[::-1].astype(wide)
    product = _exact(a) * _exact(b)
    np.testing.assert_array_equal(elementwise(f"mul.wide.{name} %out, %a, %b;", wide, a, b), _wrapped(product, wide))
    found = elementwise(f"mad.wide.{name} %out, %a, %b, %c;", wide, a, b, c)
    np.testing.assert_array_equal(found, _wrapped(product + _exact(c), wide))
    found = elementwise(f"mad.lo.{name} %out, %a, %b, %a;", dtype, a, b)
    np.testing.assert_array_equal(found, _wrapped(product + _exact(a), dtype))


def test_saturating_addition():
    a, b = _pairs(np.int32)
    found = elementwise("add.sat.s32 %out, %a, %b;", np.int32, a, b)
    np.testing.assert_array_equal(found, np.clip(a.astype(np.int64) + b, -(2**31), 2**31 - 1))


def test_dot_products_of_bytes():
    a, b = _pairs(np.uint32)
    for signs, kinds in {
        "s32.s32": (np.int8, np.int8),
        "u32.u32": (np.uint8, np.uint8),
        "u32.s32": (np.uint8, np.int8),
    }.items():
        parts = a.view(kinds[0]).reshape(-1, 4).astype(int) * b.view(kinds[1]).reshape(-1, 4)
        expected = (parts.sum(axis=1) + a.astype(np.int64)).astype(np.uint32)
        np.testing.assert_array_equal(elementwise(f"dp4a.{signs} %out, %a, %b, %a;", np.uint32, a, b), expected)


def test_bits():
    a, b = _pairs(np.uint32)
    c = np.roll(a, 7)
    amount = b % 70
    expected = {
        "and.b32 %out, %a, %b;": a & b,
        "or.b32 %out, %a, %b;": a | b,
        "xor.b32 %out, %a, %b;": a ^ b,
        "not.b32 %out, %a;": ~a,
        "lop3.b32 %out, %a, %b, %c, 0xE8;": (a & b) | (a & c) | (b & c),
        "lop3.b32 %out, %a, %b, %c, 0x96;": a ^ b ^ c,
        "prmt.b32 %out, %a, %b, 0x6240;": _permuted(a, b, [0, 4, 2, 6]),
        "popc.b32 %out, %a;": np.array([int(one).bit_count() for one in a]),
        "clz.b32 %out, %a;": np.array([32 - int(one).bit_length() for one in a]),
        "brev.b32 %out, %a;": np.array([int(f"{int(one):032b}"[::-1], 2) for one in a]),
        "bfind.u32 %out, %a;": np.array([(int(one).bit_length() - 1) & 0xFFFFFFFF for one in a]),
        "shf.l.wrap.b32 %out, %a, %b, 5;": b << 5 | a >> 27,
        "shf.r.clamp.b32 %out, %a, %b, 5;": a >> 5 | b << 27,
        "bfe.u32 %out, %a, 4, 9;": a >> 4 & 0x1FF,
        "bfi.b32 %out, %a, %b, 8, 12;": (b & ~np.uint32(0xFFF00)) | (a & 0xFFF) << 8,
    }
    for text, values in expected.items():
        np.testing.assert_array_equal(elementwise(text, np.uint32, a, b, c), values.astype(np.uint32), text)
    wide = np.where(amount < 32, a.astype(np.uint64) << amount.astype(np.uint64), 0).astype(np.uint32)
    np.testing.assert_array_equal(elementwise("shl.b32 %out, %a, %b;", np.uint32, a, amount), wide)
    down = a.view(np.int32).astype(np.int64) >> np.minimum(amount, 31)
    np.testing.assert_array_equal(elementwise("shr.s32 %out, %a, %b;", np.int32, a, amount), down)
    signed = (a.view(np.int32).astype(np.int64) << 50 >> 54).astype(np.int32)
    np.testing.assert_array_equal(elementwise("bfe.s32 %out, %a, 4, 10;", np.int32, a), signed)


def _permuted(a, b, picks):
    both = np.concatenate([a.view(np.uint8).reshape(-1, 4), b.view(np.uint8).reshape(-1, 4)], axis=1)
    return np.ascontiguousarray(both[:, picks]).view(np.uint32).ravel()


_REALS = np.array(
    [0.0, -0.0, 1.0, -1.0, 1.5, 3.14159, 1e-40, -1e-40, 6e-8, 65504, 65520, 1e10, -1e30, 3e38, np.inf, -np.inf, np.nan, 0.1],
    np.float32,
)


def _real_pairs():
    a, b = np.meshgrid(_REALS, _REALS)
    return a.ravel(), b.ravel()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_float_arithmetic():
    a, b = _real_pairs()
    # As IEEE 754 has them: the exact result rounded once.
    exact = a.astype(np.float64), b.astype(np.float64)
    expected = {
        "add.rn.f32": a + b,
        "sub.f32": a - b,
        "mul.f32": a * b,
        "div.rn.f32": a / b,
        "min.f32": np.fmin(a, b),
        "max.f32": np.fmax(a, b),
        "max.NaN.f32": np.maximum(a, b),
        "add.ftz.f32": _flushed(_flushed(a) + _flushed(b)),
    }
    for opcode, values in expected.items():
        np.testing.assert_array_equal(elementwise(f"{opcode} %out, %a, %b;", np.float32, a, b), values, opcode)
    for modifier, direction in {"rp": np.inf, "rm": -np.inf}.items():
        near = (exact[0] * exact[1]).astype(np.float32)
        past = np.where(
            (near < exact[0] * exact[1]) if direction > 0 else (near > exact[0] * exact[1]),
            np.nextafter(near, np.float32(direction)),
            near,
        )
        np.testing.assert_array_equal(elementwise(f"mul.{modifier}.f32 %out, %a, %b;", np.float32, a, b), past, modifier)
    # Rounded once: the product rounded alone would leave nothing.
    one = np.float32([1 + 2**-12])
    assert elementwise("fma.rn.f32 %out, %a, %a, %b;", np.float32, one, np.float32([-1 - 2**-11])) == 2**-24
    for opcode, values in {"abs.f32": np.abs(a), "neg.f32": -a, "sqrt.rn.f32": np.sqrt(a)}.items():
        np.testing.assert_array_equal(elementwise(f"{opcode} %out, %a;", np.float32, a), values, opcode)


def _flushed(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_half_arithmetic():
    a, b = (values.astype(np.float16) for values in _real_pairs())
    np.testing.assert_array_equal(elementwise("add.f16 %out, %a, %b;", np.float16, a, b), a + b)
    np.testing.assert_array_equal(elementwise("mul.rn.f16 %out, %a, %b;", np.float16, a, b), a * b)
    pairs = np.stack([a, b], axis=1).view(np.uint32).ravel()
    other = np.stack([b, a], axis=1).view(np.uint32).ravel()
    found = elementwise("max.f16x2 %out, %a, %b;", np.uint32, pairs, other).view(np.float16).reshape(-1, 2)
    np.testing.assert_array_equal(found, np.stack([np.fmax(a, b)] * 2, axis=1))
    bits = a.astype(np.float32).view(np.uint32)
    brain = (bits >> 16).astype(np.uint16)
    found = elementwise("fma.rn.bf16 %out, %a, %a, %a;", np.uint16, brain)
    wide = (brain.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal((found.astype(np.uint32) << 16).view(np.float32), _to_bfloat16(wide * wide + wide))


def _to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounded to nearest even, as float32."""
    near = values.astype(np.float32)
    bits = near.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(near), rounded, near)


@pytest.mark.parametrize("relation", ["lt", "ge", "eq", "ne", "gtu", "equ", "nan", "num"])
def test_comparisons_with_nan(relation):
    a, b = _real_pairs()
    unordered = np.isnan(a) | np.isnan(b)
    expected = {
        "lt": a < b,
        "ge": a >= b,
        "eq": a == b,
        "ne": (a != b) & ~unordered,
        "gtu": (a > b) | unordered,
        "equ": (a == b) | unordered,
        "nan": unordered,
        "num": ~unordered,
    }[relation]
    body = f"setp.{relation}.f32 %p1, %a, %b; selp.b32 %out, 1, 0, %p1;"
    np.testing.assert_array_equal(elementwise(body, np.uint32, a, b), expected)


def test_comparisons_joined_with_predicates():
    a, b = _pairs(np.int32)
    body = "setp.gt.s32 %p1, %a, 5; setp.lt.or.s32 %p2|%p3, %a, %b, !%p1; selp.b32 %r1, 1, 0, %p2; selp.b32 %out, 2, %r1, %p3;"
    joined = (a < b) | ~(a > 5)
    opposite = ~(a < b) | ~(a > 5)
    np.testing.assert_array_equal(elementwise(body, np.uint32, a, b), np.where(opposite, 2, joined))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_conversions_between_numbers():
    a = np.concatenate([_REALS, np.float32([2.5, 3.5, -2.5, 0.49999997, 1e9, 4294967040, -2147483648, 300, -129, 127.6])])
    whole = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
    for modifier, function in whole.items():
        for name, dtype in {"s32": np.int32, "u32": np.uint32, "s8": np.int8, "u16": np.uint16}.items():
            limits = np.iinfo(dtype)
            clamped = np.clip(np.nan_to_num(function(a.astype(np.float64))), limits.min, limits.max)
            register = "%out" if np.dtype(dtype).itemsize > 1 else "%h1"
            body = f"cvt.{modifier}.{name}.f32 {register}, %a;" + ("" if register == "%out" else " mov.b16 %out, %h1;")
            out = elementwise(body, dtype if register == "%out" else np.int16, a)
            np.testing.assert_array_equal(out, clamped.astype(np.int64).astype(out.dtype), f"{modifier} {name}")
    np.testing.assert_array_equal(elementwise("cvt.rn.f16.f32 %out, %a;", np.float16, a), a.astype(np.float16))
    found = elementwise("cvt.rn.bf16.f32 %out, %a;", np.uint16, a)
    np.testing.assert_array_equal((found.astype(np.uint32) << 16).view(np.float32), _to_bfloat16(a.astype(np.float64)))
    found = elementwise("cvt.rn.f16x2.f32 %out, %a, %b;", np.uint32, a, a[::-1]).view(np.float16).reshape(-1, 2)
    np.testing.assert_array_equal(found, np.stack([a[::-1], a], axis=1).astype(np.float16))
    halves = np.arange(0, 1 << 16, 67, np.uint16).view(np.float16)[:1000]
    np.testing.assert_array_equal(elementwise("cvt.f32.f16 %out, %a;", np.float32, halves), halves.astype(np.float32))
    integers, _ = _pairs(np.int64)
    np.testing.assert_array_equal(elementwise("cvt.rn.f32.s64 %out, %a;", np.float32, integers), integers.astype(np.float32))
    found = elementwise("cvt.rna.tf32.f32 %out, %a;", np.uint32, a)
    finite = np.abs(a) < 3e38
    assert (found & 0x1FFF == 0).all()
    np.testing.assert_allclose(found.view(np.float32)[finite], a[finite], rtol=2**-11, atol=1e-38)


def test_conversions_between_integers():
    a, _ = _pairs(np.uint32)
    np.testing.assert_array_equal(elementwise("cvt.s32.s8 %out, %a;", np.int32, a), a.astype(np.uint8).view(np.int8))
    np.testing.assert_array_equal(elementwise("cvt.s64.s32 %out, %a;", np.int64, a), a.view(np.int32))
    np.testing.assert_array_equal(elementwise("cvt.u64.u32 %out, %a;", np.uint64, a), a)
    np.testing.assert_array_equal(
        elementwise("cvt.sat.u8.s32 %h1, %a; mov.b16 %out, %h1;", np.uint16, a), np.clip(a.view(np.int32), 0, 255)
    )


def test_moves_pack_and_unpack():
    a, b = _pairs(np.uint32)
    body = "mov.b64 %w1, {%a, %b}; mov.b64 {%r1, %r2}, %w1; mov.b32 {%h1, %h2}, %r2; mov.b32 %out, {%h2, %h1};"
    np.testing.assert_array_equal(elementwise(body, np.uint32, a, b), b >> 16 | b << 16)


def test_approximate_functions():
    a = np.float32([0.25, 0.5, 1, 2, 3, 10])
    expected = {"rcp.approx.f32": 1 / a, "rsqrt.approx.ftz.f32": a**-0.5, "ex2.approx.f32": 2**a, "lg2.approx.f32": np.log2(a)}
    for opcode, values in expected.items():
        np.testing.assert_allclose(elementwise(f"{opcode} %out, %a;", np.float32, a), values, rtol=2**-22, atol=2**-22)
