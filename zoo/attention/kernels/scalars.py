"""Single numbers in the kernels: bf16 read and written as its 16 bits, and a maximum that NaN wins, as torch.amax."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

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
