"""A kernel's images dealt to OpenMP's threads by compiled code: in 3 microseconds, where Python takes 100.

Python would hand its lock from thread to thread, two to four times for a gate.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from zoo.attention.kernels.compiled import compiled

BYTES = ir.IntType(8).as_pointer()
UNSIGNED = ir.IntType(32)
NOTHING = ir.VoidType()
PARALLEL = ir.FunctionType(NOTHING, [BYTES, BYTES, UNSIGNED, UNSIGNED]).as_pointer()
"""OpenMP's `void GOMP_parallel(void (*body)(void *), void *data, unsigned threads, unsigned flags)`."""
ASK = ir.FunctionType(UNSIGNED, []).as_pointer()
"""OpenMP's `int omp_get_thread_num()` and `int omp_get_num_threads()`."""


def _body(context: Any, module: Any, go: Any, called: Any, record: Any) -> Any:
    """What each thread runs on the record: it works out its part of the images and calls `go`."""
    function: Any = ir.Function(module, ir.FunctionType(NOTHING, [record]), module.get_unique_name("part"))
    function.linkage = "internal"
    builder: Any = ir.IRBuilder(function.append_basic_block())
    (shared,) = function.args
    places = [cgutils.gep_inbounds(builder, shared, 0, k) for k in range(len(record.pointee.elements))]
    *asks, count = (builder.load(each) for each in places[:3])
    k, n = (builder.zext(builder.call(builder.inttoptr(ask, ASK), []), count.type) for ask in asks)
    bounds = [builder.sdiv(builder.mul(count, each), n) for each in (k, builder.add(k, k.type(1)))]
    compiled_go = go.dispatcher.get_compile_result(called)
    context.active_code_library.add_linking_library(compiled_go.library)
    arguments = [builder.load(each) for each in places[3:-1]]
    status, _ = context.call_internal_no_propagate(builder, compiled_go.fndesc, called, [*bounds, *arguments])
    with builder.if_then(status.is_error):
        builder.store(UNSIGNED(1), places[-1])
    builder.ret_void()
    return function


def _typed(typing: Any, openmp: Any, go: Any, threads: Any, images: Any, arguments: Any) -> Any:
    """numba's view of `_fork_join`: its type, and the function that writes it in LLVM's language."""
    called = go.get_call_type(typing, (types.intp, types.intp, *arguments.types), {})

    def lower(context: Any, builder: Any, _: Any, values: Any) -> Any:
        addresses, _, wanted, count, given = values
        parallel, *ask = cgutils.unpack_tuple(builder, addresses, 3)
        # What the threads read, and last the place where one of them says that it failed.
        record = [*ask, count, *cgutils.unpack_tuple(builder, given, len(arguments.types)), UNSIGNED(0)]
        shared = cgutils.alloca_once(builder, ir.LiteralStructType([each.type for each in record]))
        for k, each in enumerate(record):
            builder.store(each, cgutils.gep_inbounds(builder, shared, 0, k))
        body = _body(context, builder.module, go, called, shared.type)
        data = [builder.bitcast(each, BYTES) for each in (body, shared)]
        builder.call(builder.inttoptr(parallel, PARALLEL), [*data, builder.trunc(wanted, UNSIGNED), UNSIGNED(0)])
        failed = builder.load(cgutils.gep_inbounds(builder, shared, 0, len(record) - 1))
        return builder.icmp_unsigned("!=", failed, UNSIGNED(0))

    return types.boolean(openmp, go, threads, images, arguments), lower


_fork_join: Any = intrinsic(_typed)
"""Call `go(start, stop, *arguments)` on each thread of a team, with its part of the images; returns if one failed."""


@cache
def dealt(go: Any) -> Callable[..., bool]:
    """`deal(openmp, threads, x, *arguments)`: `go(start, stop, x, *arguments)` for all images of `x`, some a thread.

    `openmp` are the addresses of OpenMP's functions (threads.py). Returns whether a part failed, for want of memory.
    """

    def deal(openmp: Any, threads: int, x: Any, *arguments: Any) -> bool:
        return _fork_join(openmp, go, threads, len(x), (x, *arguments))

    deal.__qualname__ = f"{go.__module__}.{go.__qualname__}"  # names its file on disk
    return compiled(deal)
