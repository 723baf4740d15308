"""Gates read from outside: what `zoo.attention_maps` gives, for every kind of attention and network."""

import math
from contextlib import nullcontext
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import zoo
from zoo.attention import BAM, CBAM, CoordAttention, HarmoniousAttention, SimAM, SqueezeExcite
from zoo.explain import ExplainError


@pytest.fixture(scope="module")
def cbam() -> nn.Module:
    """With gates that differ from image to image."""
    torch.manual_seed(1)
    return timm.create_model("cbam_resnet20_cifar", num_classes=5)


def hooks_of(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def images(count: int = 2, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(3))


def test_maps_are_what_multiplies(cbam: nn.Module) -> None:
    """Against what each block gave its attention and got back, on a picture that is not square."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    cbam.train()
    for name, module in cbam.named_modules():
        if isinstance(module, CBAM):
            module.register_forward_hook(lambda m, a, y, name=name: seen.update({name: (a[0], y.clone())}))
    before = {key: value.clone() for key, value in cbam.state_dict().items()}
    maps = zoo.attention_maps(cbam, images(size=(40, 24)))
    assert list(maps) == list(seen) and "layer1.0.se" in maps and len(maps) == 9
    for name, (x, y) in seen.items():
        found = maps[name]
        assert found.channel is not None and found.spatial is not None and found.joint is None
        assert found.channel.shape == x.shape[:2] and found.spatial.shape == (2, *x.shape[2:])
        torch.testing.assert_close(x * found.channel[..., None, None] * found.spatial[:, None], y)
        assert found.constants == {"channel": 1, "spatial": 1} and found.constant == 1
        assert not found.channel.requires_grad
    assert cbam.training and all(torch.equal(value, before[key]) for key, value in cbam.state_dict().items())
    for module in cbam.modules():
        module._forward_hooks.clear()


@pytest.mark.parametrize(
    ("names", "count"), [("*", 9), ("layer2.*", 3), ("layer1.0.se", 1), (["layer1.*", "layer3.2.se"], 4)]
)
def test_names(names: Any, count: int, cbam: nn.Module) -> None:
    assert len(zoo.attention_maps(cbam, images(1), names)) == count


class Around(nn.Module):
    """A network of one attention."""

    def __init__(self, attention: nn.Module, fails: bool = False) -> None:
        super().__init__()
        self.attention, self.fails = attention, fails

    def forward(self, x: Tensor) -> Any:
        y = self.attention(x)
        if self.fails:
            raise RuntimeError("out of memory")
        return y


@pytest.mark.parametrize("mode", [nullcontext, torch.no_grad, torch.inference_mode], ids=["grad", "none", "inference"])
@pytest.mark.parametrize("how", ["eager", "compiled", "compiled in place", "a part compiled"])
def test_any_grad_mode_and_compiled_networks(mode: Any, how: str) -> None:
    torch.manual_seed(0)
    network: Any = Around(CBAM(8, 2)).eval()
    x = torch.randn(1, 8, 6, 6)
    expected = zoo.attention_maps(network, x)["attention"]
    compiled: Any = network
    if how == "compiled":
        compiled = torch.compile(network, backend="eager")
        compiled(x)
    elif how == "compiled in place":
        network.compile(backend="eager")
    elif how == "a part compiled":
        network.attention = torch.compile(network.attention, backend="eager")
    with mode():
        found = zoo.attention_maps(compiled, x)
    assert list(found) == ["attention"]
    torch.testing.assert_close(found["attention"].values, expected.values)


def test_hooks_are_gone_after_an_error() -> None:
    network = Around(CBAM(8, 2), fails=True).train()
    with pytest.raises(RuntimeError, match="out of memory"):
        zoo.attention_maps(network, torch.randn(1, 8, 4, 4))
    assert not hooks_of(network) and network.training and network.attention.training


@pytest.mark.parametrize(
    ("attention", "shapes", "constant", "places", "channels"),
    [
        (SqueezeExcite(8, 2), {"channel": (2, 8)}, 0.5, None, 0.5),
        (CBAM(8, 2), {"channel": (2, 8), "spatial": (2, 6, 5)}, 0.25, 0.5, 0.5),
        (CBAM(8, 2, neutral=True), {"channel": (2, 8), "spatial": (2, 6, 5)}, 1, 1, 1),
        (BAM(8, 2), {"joint": (2, 8, 6, 5)}, 1.5, 1.5, 1.5),
        (CoordAttention(8), {"height": (2, 8, 6), "width": (2, 8, 5)}, 0.25, 0.25, 0.25),
        (SimAM(8), {"joint": (2, 8, 6, 5)}, math.nan, math.nan, math.nan),
        (HarmoniousAttention(8, 3), {"joint": (2, 8, 6, 5), "regions": (2, 3, 2)}, 0.75, 0.75, 0.75),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_each_kind_of_attention(
    attention: nn.Module, shapes: dict[str, tuple[int, ...]], constant: float, places: float | None, channels: float
) -> None:
    found = zoo.attention_maps(Around(attention), torch.randn(2, 8, 6, 5))["attention"]
    for name in ("channel", "spatial", "joint", "height", "width", "regions"):
        values = getattr(found, name)
        assert (None if values is None else tuple(values.shape)) == shapes.get(name)
    assert found.constant == pytest.approx(constant, nan_ok=True)
    assert found.channels is not None and found.channels.shape == (2, 8)
    assert found.channels_constant == pytest.approx(channels, nan_ok=True)
    if places is None:
        assert found.places is None
        with pytest.raises(ExplainError, match="no map over places: this attention has channel gates"):
            found.upsample((32, 32))
    else:
        assert found.places is not None and found.places.shape == (2, 6, 5)
        assert found.places_constant == pytest.approx(places, nan_ok=True)
        assert found.upsample((24, 20)).shape == (2, 24, 20)


@pytest.mark.parametrize("keep_depth", [False, True])
def test_volumes(keep_depth: bool) -> None:
    found = zoo.attention_maps(Around(CBAM(8, 2, dims=3, keep_depth=keep_depth)), torch.randn(1, 8, 3, 6, 5))
    maps = found["attention"]
    assert maps.channel is not None and maps.channel.shape == ((1, 8, 3) if keep_depth else (1, 8))
    assert maps.spatial is not None and maps.spatial.shape == (1, 3, 6, 5)
    assert maps.upsample((6, 12, 10)).shape == (1, 6, 12, 10)


def test_sequences() -> None:
    maps = zoo.attention_maps(Around(CBAM(8, 2, dims=1)), torch.randn(2, 8, 9))["attention"]
    assert maps.spatial is not None and maps.spatial.shape == (2, 9) and maps.upsample((18,)).shape == (2, 18)


def test_gates_that_were_attached() -> None:
    network = zoo.attach(timm.create_model("mobilenetv2_050", num_classes=4), "cbam")
    maps = zoo.attention_maps(network, images(1))
    assert maps and all(found.constant == 1 and found.places is not None for found in maps.values())


@pytest.mark.parametrize(
    ("model", "names", "says"),
    [
        ("cbam_resnet20_cifar", "layer9.*", "no attention of the network is called 'layer9.*'; it has layer1.0.se"),
        ("resnet20_cifar", "*", "CifarResNet has no attention of the zoo.*`zoo list` prints models that have"),
    ],
)
def test_what_cannot_be_shown(model: str, names: str, says: str) -> None:
    with pytest.raises(ExplainError, match=says):
        zoo.attention_maps(timm.create_model(model, num_classes=5), images(1), names)
