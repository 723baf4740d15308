"""Single numbers in the kernels: bf16 read and written as its 16 bits, a maximum that NaN wins, a sigmoid."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

BITS = ir.IntType(32)
in_code: Any = intrinsic  # its caller in a kernel leaves out `typing`, which no type says


def _unchanged(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return arguments[0]


@in_code
def widen(typing: Any, value: Any) -> Any:
    """A number of a map as it is computed with: the upper half of an fp32's bits, or itself."""
    if value != types.uint16:
        return value(value), _unchanged

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        upper = builder.shl(builder.zext(arguments[0], BITS), BITS(16))
        return builder.bitcast(upper, ir.FloatType())

    return types.float32(value), code


@in_code
def narrow(typing: Any, value: Any, like: Any) -> Any:
    """A number as it is kept in a map of numbers `like` that one: in bf16 rounded to the nearest, ties to even."""
    if like != types.uint16:
        return like(like, like), _unchanged

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], BITS)
        even = builder.add(builder.and_(builder.lshr(bits, BITS(16)), BITS(1)), BITS(0x7FFF))
        rounded = builder.lshr(builder.add(bits, even), BITS(16))
        lost = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        return builder.trunc(builder.select(lost, BITS(0x7FC0), rounded), ir.IntType(16))

    return like(types.float32, like), code


@in_code
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """The larger of two numbers of one type, NaN if one of them is."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        function = builder.module.declare_intrinsic("llvm.maximum", [kind], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, arguments, fastmath=("nsz",))

    return a(a, a), code


@in_code
def power_of_two(typing: Any, exponent: Any) -> Any:
    """2 to a whole fp32 between -126 and 127, by its bits."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(builder.fptosi(arguments[0], BITS), BITS(127))
        return builder.bitcast(builder.shl(biased, BITS(23)), ir.FloatType())

    return exponent(exponent), code


def sigmoid(z: Any) -> Any:
    """1 / (1 + exp(-z)), 1/2 at 0, NaN at NaN; in fp32 to 2e-7 where it is not tiny; no call in a loop."""


@overload(sigmoid, inline="always")
def _sigmoid(z: Any) -> Any:
    if z != types.float32:

        def exactly(z: Any) -> Any:
            return 1 / (1 + math.exp(-z))

        return exactly

    log2e, ln2, low, high, half = (np.float32(value) for value in (1.4426950408889634, math.log(2), -87, 87, 0.5))
    shut = np.float32(-88.72284)  # below it exp(-z) is infinite, and infinity times a gate of 0 NaN, as in PyTorch
    c2, c3, c4, c5, c6, c7 = (np.float32(1 / math.factorial(k)) for k in range(2, 8))
    one, none = np.float32(1), np.float32(0)

    def by_powers(z: Any) -> Any:
        t = low if z > high else (high if z < low else -z)
        whole = np.floor(t * log2e + half)
        r = t - whole * ln2
        series = one + r * (one + r * (c2 + r * (c3 + r * (c4 + r * (c5 + r * (c6 + r * c7))))))
        return none if z < shut else one / (one + series * power_of_two(whole))

    return by_powers
