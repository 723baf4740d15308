"""Which form of an attention runs: eager PyTorch, or its kernel."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_state

VARIABLE = "ZOO_KERNELS"
WAYS = ("auto", "off", "triton")
PARAMETERS = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
"""The maps that kernels read, and the precision of the gate's parameters beside each."""
ON_GPU = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float16: torch.float32}
"""The same on a GPU."""
PLAIN = (Tensor, nn.Parameter)
"""Weights whose numbers are where they say."""
UNPROVEN = (
    "attention by Triton kernels, which have run in Triton's interpreter and never on a GPU: run "
    "scripts/gpu/correctness.py and scripts/gpu/bench_kernels.py on yours before you trust them"
)
logger = logging.getLogger("zoo.attention.kernels")

_way: ContextVar[str] = ContextVar("way")


@contextmanager
def kernels(way: str) -> Iterator[None]:
    """Within it, every attention runs in eager PyTorch ("off"), or by the rule of `chosen` ("auto", "triton").

    The environment variable ZOO_KERNELS, read once, says the same for what is outside. Raises ValueError.
    """
    token = _way.set(_where_there_is_numba(_require_way("kernels", way)))
    try:
        yield
    finally:
        _way.reset(token)


def chosen(x: Tensor, parts: Sequence[nn.Module], parameter: Tensor) -> bool:
    """Whether a kernel runs on the map `x` and a `parameter` of a gate, on one device, by the rule of `allowed`."""
    return allowed(x, parts, parameter.dtype) and parameter.device == x.device


def allowed(x: Tensor, parts: Sequence[nn.Module], precision: torch.dtype) -> bool:
    """Whether a kernel runs on the map `x`: the one rule for all of them.

    It runs where it computes what the eager form does and nobody looks inside:

    - numba is installed (the extra `fast`), and neither `kernels("off")` nor ZOO_KERNELS=off is in force;
    - `x` (B, C, H, W) or (B, C, D, H, W) is a plain tensor on the CPU in fp32, bf16 or fp64, not empty, and the
      `precision` of the gate, its parameters', is fp32, for fp64 fp64; or it is on a GPU in fp32, bf16 or fp16, and
      `kernels("triton")` or ZOO_KERNELS=triton is in force: no GPU has run those kernels yet, so "auto" leaves a GPU
      to eager PyTorch;
    - no `part` of the module has a hook, or weights of a class of their own (quantised, sharded), and neither a
      dispatch mode, torch.func nor forward-mode differentiation watches;
    - nothing is traced or exported (TorchScript, torch.fx, torch.export, ONNX): there the eager form is what others can
      read. On a CPU torch.compile keeps CBAM whole, but for inference with many channels (`cbam.MANY`): that measures
      faster than what it makes of the eager form (zoo/attention/kernels/README.md). It joins SE and the other functions
      itself.

    The module has asked before whether its kernel knows its options and the types of its layers (`fusable`). A second
    derivative is taken of the eager form, wherever the first came from.
    """
    if type(x) is not Tensor:  # torch.fx traces by something else, which knows no device
        return False
    known = PARAMETERS if x.is_cpu else ON_GPU if x.is_cuda else {}
    if x.ndim not in (4, 5) or known.get(x.dtype) != precision or x.numel() == 0 or any(map(_altered, parts)):
        return False
    if torch.compiler.is_compiling():  # first: Dynamo cannot trace what follows
        return _in_a_graph(x)
    if torch.jit.is_tracing():
        return False
    way = _way.get(_default())
    if way == "off" or (x.is_cuda and way != "triton"):
        return False
    watched = (
        torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
        or forward_ad._current_level >= 0
        or module_state._has_any_global_hook()
    )
    return not watched and (x.is_cpu or _on_gpu())


def _in_a_graph(x: Tensor) -> bool:
    """The rule for a graph that torch.compile makes. It asks again, and makes another one, within `kernels("off")`."""
    watched = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    runs = x.is_cpu and not torch.compiler.is_exporting() and not watched
    return runs and (_way.get("") or _default_of_a_graph()) != "off"


@torch.compiler.assume_constant_result
def _default_of_a_graph() -> str:
    return _default()


@cache
def _on_gpu() -> bool:
    """Register the kernels of a GPU, and say what they are."""
    if not find_spec("triton"):
        raise ValueError(f"kernels are 'triton', and Triton is not installed; choose of {', '.join(WAYS[:2])}")
    import_module("zoo.attention.kernels.tail_ops")
    logger.warning(UNPROVEN)
    return True


def _altered(part: nn.Module) -> bool:
    """Whether a hook looks on, or a weight is of a kind that keeps its numbers elsewhere, such as a quantised one."""
    if part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks:
        return True
    return any(weight is not None and type(weight) not in PLAIN for weight in part._parameters.values())


@cache
def _default() -> str:
    """What is in force outside of `kernels`."""
    return _where_there_is_numba(_require_way(VARIABLE, os.environ.get(VARIABLE, "auto")))


def _where_there_is_numba(way: str) -> str:
    return way if find_spec("numba") else "off"


def _require_way(name: str, way: str) -> str:
    if way not in WAYS:
        raise ValueError(f"{name} must be one of {', '.join(WAYS)}, not {way!r}")
    return way


def in_words() -> str:
    """Which form runs, for the first lines of a run."""
    if _way.get(_default()) == "triton" and torch.cuda.is_available():
        return UNPROVEN
    if _way.get(_default()) != "off":
        return f"attention by kernels of numba {version('numba')}"
    if find_spec("numba"):
        return "eager attention, as kernels are off"
    return 'eager attention, as numba is missing (pip install "timm-attention-zoo[fast]")'
