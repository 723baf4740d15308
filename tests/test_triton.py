"""The GPU's passes in Triton's interpreter, on the CPU, against the eager form in fp64. No GPU is needed, none is used.

The interpreter shows neither races nor alignment nor speed: scripts/gpu/correctness.py asks a GPU.
"""

import os
from typing import Any

import pytest
import torch
from formulas import randomised
from torch import Tensor

pytest.importorskip("triton", reason="torch brings Triton on Linux alone")
pytest.importorskip("numba", reason="the kernels need the extra `fast`")
if os.environ["TRITON_INTERPRET"] != "1":
    pytest.skip("TRITON_INTERPRET is not 1", allow_module_level=True)

import triton
import triton.language as tl

from zoo.attention import CBAM, SqueezeExcite
from zoo.attention.kernels import cbam, se, tails, triton_passes
from zoo.attention.kernels import tail_ops as ops

LAST = torch.channels_last
KINDS = {kind.name: kind for kind in ops.KINDS}
NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}


def arguments_of(name: str, channels: int, size: tuple[int, int], images: int, training: bool = True) -> list[Any]:
    if name == "cbam":
        return list(randomised(CBAM(channels, 4, neutral=True)).train(training).parts())
    if name == "se":
        fc1, fc2 = (gate := SqueezeExcite(channels, 4)).fc1, gate.fc2
        return [fc1.weight, fc1.bias, fc2.weight, fc2.bias, 1.0]
    logits = torch.randn(images, channels, 1, 1), torch.randn(images, 1, *size)
    return [*(each.requires_grad_() for each in logits), 1 / 3, True]


def map_of(*shape: int, dtype: torch.dtype, ties: bool = False) -> Tensor:
    x = torch.randn(shape) * 1.5
    return ((x * 2).round() / 2 if ties else x).to(dtype).contiguous(memory_format=LAST)


def outcome(call: Any, x: Tensor, shortcut: Tensor | None, arguments: list[Any], dy: Tensor) -> list[Tensor]:
    """What is returned, then the gradients of the map, the shortcut and all parameters."""
    leaves = [each.detach().clone().requires_grad_() for each in (x, *([] if shortcut is None else [shortcut]))]
    wanted = [each for each in arguments if isinstance(each, Tensor) and each.requires_grad]
    y = call(leaves[0], leaves[1] if len(leaves) > 1 else None)
    return [y.detach(), *torch.autograd.grad(y, [*leaves, *wanted], dy.to(y.dtype))]


def assert_as_in_fp64(name: str, x: Tensor, shortcut: Tensor | None, arguments: list[Any]) -> None:
    kind, relu = KINDS[name], shortcut is not None
    dy = torch.randn(x.shape).to(x.dtype)
    tail = getattr(torch.ops.zoo, f"{name}_tail")

    def kernel(x: Tensor, shortcut: Tensor | None) -> Tensor:
        outputs = tail(x, shortcut, relu, *arguments)
        return outputs if isinstance(outputs, Tensor) else outputs[0]

    exact = [
        each.detach().double().requires_grad_(each.requires_grad) if isinstance(each, Tensor) else each
        for each in arguments
    ]

    def definition(x: Tensor, shortcut: Tensor | None) -> Tensor:
        y = kind.eager(x, *exact)
        return y if shortcut is None else torch.relu(y + shortcut)

    doubled = None if shortcut is None else shortcut.double()
    expected = outcome(definition, x.double(), doubled, exact, dy.double())
    found = outcome(kernel, x, shortcut, arguments, dy)
    for k, (values, wanted) in enumerate(zip(found, expected, strict=True)):
        assert values.shape == wanted.shape and (k > 1 or values.is_contiguous(memory_format=LAST))
        off = (values.double() - wanted).norm() / wanted.norm().clamp(min=1e-3)
        assert off < NEAR[x.dtype], f"{name}, tensor {k}: {off:.1e}"


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory is full of NaN, so that a number which no pass wrote shows; small blocks, as programs take long."""
    for name, size in (("PLACES", 16), ("CHANNELS", 16), ("PARTS", 2)):
        monkeypatch.setattr(triton_passes, name, size)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    yield  # pyright: ignore
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("dtype", "residual", "ties"),
    [
        (torch.float32, True, True),
        pytest.param(torch.float32, False, False, marks=pytest.mark.every),
        (torch.bfloat16, False, True),
        pytest.param(torch.float16, True, True, marks=pytest.mark.every),
    ],
)
def test_tails_against_fp64(name: str, dtype: torch.dtype, residual: bool, ties: bool) -> None:
    """An odd size, more channels than a program has, and not a multiple; ties as the eager gradient shares them."""
    size = (3, 7)
    x = map_of(2, 20, *size, dtype=dtype, ties=ties)
    shortcut = map_of(2, 20, *size, dtype=dtype) if residual else None
    assert_as_in_fp64(name, x, shortcut, arguments_of(name, 20, size, 2))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), pytest.param((3, 5, 1, 13), marks=pytest.mark.every)])
def test_small_maps(name: str, shape: tuple[int, int, int, int]) -> None:
    images, channels, *size = shape
    x, shortcut = map_of(*shape, dtype=torch.float32), map_of(*shape, dtype=torch.float32)
    arguments = arguments_of(name, channels, (size[0], size[1]), images, training=False)
    assert_as_in_fp64(name, x, shortcut, arguments)


def test_a_map_that_lies_otherwise_and_one_that_is_not_finite() -> None:
    arguments = arguments_of("cbam", 8, (5, 3), 2, training=False)
    x = map_of(2, 8, 5, 3, dtype=torch.float32)
    strided = torch.stack((x.contiguous(), x.contiguous()), -1)[..., 0]
    one, other = (torch.ops.zoo.cbam_tail(each, None, False, *arguments)[0] for each in (x, strided))
    assert torch.equal(one, other)
    x[0, 1, 2, 2], x[1, 3, 0, 0] = torch.nan, torch.inf
    found = torch.ops.zoo.cbam_tail(x, None, False, *arguments)[0]
    expected = cbam.eager(x, cbam.Parameters(*arguments))
    torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("name", ["cbam", "se", "amplify"])
def test_what_a_gpu_registers_is_the_tail_without_shortcut(name: str) -> None:
    """Called by hand, as the operation itself goes to numba on a CPU."""
    x = map_of(2, 8, 5, 3, dtype=torch.float32)
    arguments = arguments_of(name, 8, (5, 3), 2)
    with torch.no_grad():
        found = KINDS[name].forward(x, None, False, *arguments)
        forward = {"cbam": cbam.forward, "se": se.forward, "amplify": torch.ops.zoo.amplify}[name](x, *arguments)
        expected = forward if isinstance(forward, tuple) else (forward,)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
        dy = torch.randn_like(x)
        backward = {"cbam": cbam.backward, "se": se.backward, "amplify": torch.ops.zoo.amplify_backward}[name]
        gradients = (
            KINDS[name].backward(dy, x, False, x, *arguments, *found[1 : KINDS[name].outputs + 1])[1:]
            if name != "cbam"
            else KINDS[name].backward(dy, x, False, x, *arguments, *found[1:9])[1:]
        )
        wanted = backward(dy, x, *arguments, *(expected[1:9] if name == "cbam" else expected[1:]))
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_second_derivatives_are_those_of_the_definition() -> None:
    arguments = arguments_of("se", 4, (3, 3), 1)
    found = []
    for form in ("kernel", "eager"):
        x = torch.arange(36.0).view(1, 4, 3, 3).sin().requires_grad_()
        y = (
            torch.ops.zoo.se_tail(x, None, False, *arguments)[0]
            if form == "kernel"
            else KINDS["se"].eager(x, *arguments)
        )
        slope = torch.autograd.grad(y.square().sum(), x, create_graph=True)[0]
        found.append(torch.autograd.grad(slope.square().sum(), x)[0])
    torch.testing.assert_close(*found)


@triton.jit
def _tell(out, n0, p0, c0, P, C, BP: tl.constexpr, BC: tl.constexpr):
    n, p, c = n0 + tl.program_id(0), p0 + tl.arange(0, BP), c0 + tl.arange(0, BC)
    found = triton_passes.offsets(n, p, c, P, C)
    tl.store(out + tl.arange(0, BP)[:, None] * BC + tl.arange(0, BC)[None, :], found)


def test_offsets_go_beyond_32_bits() -> None:
    """Of the last image of a batch, and of one image alone; no such map is made."""
    for n, places, channels in [(300, 56 * 56, 4096), (0, 4096 * 4096, 256)]:
        out = torch.empty(2, 4, dtype=torch.int64)
        _tell[(1,)](out, n, places - 2, channels - 4, places, channels, BP=2, BC=4)
        wanted = [
            [(n * places + p) * channels + c for c in range(channels - 4, channels)] for p in (places - 2, places - 1)
        ]
        assert out.tolist() == wanted and wanted[-1][-1] > 2**31


def test_an_empty_batch_is_eager() -> None:
    gate = randomised(CBAM(8)).eval()
    assert gate(torch.randn(0, 8, 4, 4)).shape == (0, 8, 4, 4)
    x = torch.empty(0, 3, 8)
    triton_passes.by_block(triton_passes.weigh_and_add, x, x, x, x, x)
    assert tails.pooled_space(x, True)[0].shape == (0, 8)
