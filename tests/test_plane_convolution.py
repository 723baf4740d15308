"""Convolutions of one channel to one: what PyTorch's give, and theirs where the kernel does not know the layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from zoo.attention import BAM, kernels, ops

pytest.importorskip("numba", reason="the kernels need numba, the extra `fast`")

from zoo.attention.kernels import plane_convolution

LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
LAYERS: dict[str, Callable[[], nn.Conv2d]] = {
    "dilated": lambda: nn.Conv2d(1, 1, 3, padding=4, dilation=4),
    "pointwise": lambda: nn.Conv2d(1, 1, 1),
    "without bias": lambda: nn.Conv2d(1, 1, 3, padding=1, bias=False),
    "of five": lambda: nn.Conv2d(1, 1, 5, padding=4, dilation=2),
    "of seven": lambda: nn.Conv2d(1, 1, 7, padding=3),
    "of seven, dilated": lambda: nn.Conv2d(1, 1, 7, padding=6, dilation=2),
}
UNKNOWN: dict[str, Callable[[], nn.Module]] = {
    "two channels": lambda: nn.Conv2d(1, 2, 3, padding=1),
    "no padding": lambda: nn.Conv2d(1, 1, 3),
    "circular": lambda: nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
    "strided": lambda: nn.Conv2d(1, 1, 3, padding=1, stride=2),
    "oblong": lambda: nn.Conv2d(1, 1, (3, 1), padding=(1, 0)),
    "even": lambda: nn.Conv2d(1, 1, 4, padding=2),
    "padding by name": lambda: nn.Conv2d(1, 1, 3, padding="same"),
    "normed": lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3, padding=1)),
}


def outcome(layer: nn.Module, x: Tensor, way: str) -> list[Tensor]:
    """The map and all gradients."""
    x = x.detach().requires_grad_()
    with kernels(way):
        y = ops.convolve(layer, x)
        found = torch.autograd.grad(y, [x, *layer.parameters()], torch.linspace(-1, 2, y.numel()).view_as(y).type_as(y))
    return [y.detach(), *found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(9, 7), (1, 1), (2, 33)])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_pytorch(name: str, size: tuple[int, int], layout: str, dtype: torch.dtype) -> None:
    layer = LAYERS[name]().to(dtype)
    x = torch.randn(3, 1, *size, dtype=dtype).contiguous(memory_format=LAYOUTS[layout])
    assert plane_convolution.knows(layer)
    for ours, theirs in zip(outcome(layer, x, "auto"), outcome(layer, x, "off"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * max(float(theirs.abs().max()), 1))
    assert ops.convolve(layer, x).is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("name", LAYERS)
def test_a_map_in_bf16_is_computed_in_fp32(name: str) -> None:
    layer = LAYERS[name]()
    x = torch.randn(3, 1, 9, 7).bfloat16()
    y, dx, *rest = outcome(layer, x, "auto")
    exact, exact_dx, *others = outcome(layer, x.float(), "off")
    torch.testing.assert_close(y, exact.bfloat16(), rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(dx, exact_dx.bfloat16(), rtol=2e-2, atol=2e-2)
    for ours, theirs in zip(rest, others, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2 * float(theirs.abs().max()))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_not_finite_is_as_in_pytorch(value: float) -> None:
    layer = LAYERS["dilated"]()
    x = torch.randn(2, 1, 12, 12)
    x[1, 0, 3, 5] = value
    for ours, theirs in zip(outcome(layer, x, "auto"), outcome(layer, x, "off"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4, equal_nan=True)


def test_second_derivatives() -> None:
    layer = LAYERS["dilated"]().double()
    x = torch.randn(2, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    w, b = layer.weight.detach().requires_grad_(), torch.randn(1, dtype=torch.float64, requires_grad=True)
    run = plane_convolution._run
    assert torch.autograd.gradcheck(lambda x, w, b: run(x, w, b, 4), (x, w, b))
    assert torch.autograd.gradgradcheck(lambda x, w, b: run(x, w, b, 4), (x, w, b))


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_layers_go_by_pytorch(name: str) -> None:
    layer = UNKNOWN[name]()
    x = torch.randn(2, 1, 8, 8)
    assert not plane_convolution.knows(layer)
    assert torch.equal(ops.convolve(layer, x), layer(x))


@pytest.mark.parametrize("place", ["trunk", "trunk.conv1", "project"])
def test_hooks_are_called(place: str) -> None:
    seen: list[str] = []
    spatial = BAM(16).spatial
    assert spatial is not None
    spatial.get_submodule(place).register_forward_hook(lambda *_: seen.append(place))
    spatial(torch.randn(2, 16, 8, 8))
    assert seen == [place]
