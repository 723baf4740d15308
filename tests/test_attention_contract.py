"""What every attention module promises (zoo/attention/contract.py), and timm's promises that none of them may break."""

import inspect
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import timm
import torch
from formulas import BUILDS, CHANNELS, MODULES, build, each_form, naive, naive_gates, randomised
from timm.utils import reparameterize_model
from torch import Tensor, nn

import zoo  # noqa: F401
from zoo import attention
from zoo.attention import CBAM, Attention, HardAttention, HarmoniousAttention, SpatialGate, SqueezeExcite
from zoo.models.attentions import ATTENTIONS


def concrete(base: type[Attention] = Attention) -> Iterator[type[Attention]]:
    for kind in base.__subclasses__():
        if not inspect.isabstract(kind):
            yield kind
        yield from concrete(kind)


CLASSES = sorted(set(concrete()), key=lambda kind: kind.__name__)
each_class = pytest.mark.parametrize("kind", CLASSES)


def product(gates: dict[str, Tensor], x: Tensor) -> Tensor:
    return math.prod(gates.values(), start=x)


def parts(module: nn.Module) -> list[Attention]:
    return [m for m in module.modules() if isinstance(m, Attention) and m is not module]


def count_calls(modules: list[Any]) -> Counter[nn.Module]:
    calls = Counter[nn.Module]()
    for module in modules:
        module.register_forward_hook(lambda m, inputs, output: calls.update([m]))
    return calls


def test_all_that_is_exported_is_an_attention() -> None:
    exported = {getattr(attention, name) for name in attention.__all__ if name != "kernels"}
    assert all(issubclass(kind, Attention) for kind in exported)
    assert {kind for kind in CLASSES if kind in exported} == {kind for kind in exported if not inspect.isabstract(kind)}


@each_class
def test_channels_come_first_device_and_dtype_last(kind: type[Attention]) -> None:
    signature = list(inspect.signature(kind).parameters.values())
    assert signature[0].name == "channels" and signature[0].default is inspect.Parameter.empty
    assert signature[-1].kind is inspect.Parameter.VAR_KEYWORD
    assert signature[-2].name == "neutral" and signature[-2].default is False
    module = kind(CHANNELS, device="meta", dtype=torch.float64)
    assert all(p.is_meta and p.dtype == torch.float64 for p in module.parameters())
    floating = [b for b in module.buffers() if b.is_floating_point()]
    assert all(b.is_meta and b.dtype == torch.float64 for b in floating)


@each_class
def test_an_unknown_argument_is_refused(kind: type[Attention]) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} got .*'reducton'; it takes channels, .*device, dtype"):
        kind(CHANNELS, reducton=8)


@each_class
def test_cites_its_paper(kind: type[Attention]) -> None:
    assert any(kind.paper == row.gate.paper for row in ATTENTIONS.values())
    head = (inspect.getdoc(inspect.getmodule(kind)) or "").partition("\n")[0]
    assert head.startswith(kind.paper)


@each_form()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_multiplies_by_the_gates(name: str, neutral: bool, dtype: torch.dtype) -> None:
    for training in (True, False):
        module = build(name, neutral=neutral, dtype=dtype).train(training)
        x = torch.randn(2, CHANNELS, 6, 5, dtype=dtype)
        gates = module.gates(x)
        assert gates and all(gate.dtype == dtype and gate.ndim == x.ndim for gate in gates.values())
        assert all(torch.broadcast_shapes(gate.shape, x.shape) == x.shape for gate in gates.values())
        rtol = 1e-5 if dtype == torch.float32 else 3e-2
        torch.testing.assert_close(module(x), product(gates, x), rtol=rtol, atol=1e-6)


@each_form()
@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
def test_each_gate_equals_the_formula(name: str, neutral: bool, size: tuple[int, int]) -> None:
    module, x = build(name, neutral=neutral).eval(), torch.randn(2, CHANNELS, *size)
    gates, formula = module.gates(x), naive_gates(name, module, x)
    assert list(gates) == list(formula)
    for gate, values in gates.items():
        torch.testing.assert_close(values, formula[gate], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "gates"),
    [
        (("se", "eca", "channel", "ha_channel"), {"channel": (2, CHANNELS, 1, 1)}),
        (("spatial", "spatial_conv", "ha_spatial"), {"spatial": (2, 1, 6, 5)}),
        (("cbam", "cbam_parallel", "scse_mul"), {"channel": (2, CHANNELS, 1, 1), "spatial": (2, 1, 6, 5)}),
        (("cbam_reversed",), {"spatial": (2, 1, 6, 5), "channel": (2, CHANNELS, 1, 1)}),
        (("coord",), {"height": (2, CHANNELS, 6, 1), "width": (2, CHANNELS, 1, 5)}),
        (("bam", "scse", "scse_max", "simam", "triplet", "ha"), {"joint": (2, CHANNELS, 6, 5)}),
    ],
)
def test_names_and_shapes_of_the_gates(names: tuple[str, ...], gates: dict[str, tuple[int, ...]]) -> None:
    for name in names:
        found = build(name).gates(torch.randn(2, CHANNELS, 6, 5))
        assert [(gate, tuple(values.shape)) for gate, values in found.items()] == list(gates.items()), name


@pytest.mark.parametrize("neutral", [False, True])
@pytest.mark.parametrize("arrangement", ["channel", "spatial"])
def test_a_cbam_with_one_gate(arrangement: str, neutral: bool) -> None:
    module = randomised(CBAM(CHANNELS, arrangement=arrangement, neutral=neutral)).eval()
    x = torch.randn(2, CHANNELS, 6, 5)
    assert [name for name, _ in module.named_children()] == list(module.gates(x)) == [arrangement]
    torch.testing.assert_close(module(x), product(module.gates(x), x))
    torch.testing.assert_close(module(x), naive(arrangement, module.get_submodule(arrangement), x))
    assert module.make_constant() == (1 if neutral else 0.5)


@pytest.mark.parametrize("neutral", [False, True])
@pytest.mark.parametrize("keep_depth", [False, True])
@pytest.mark.parametrize("name", ["se", "channel", "spatial", "cbam", "cbam_reversed", "bam"])
def test_gates_of_volumes(name: str, keep_depth: bool, neutral: bool) -> None:
    options = {"keep_depth": keep_depth} if name != "spatial" else {}
    module, x = build(name, dims=3, neutral=neutral, **options).eval(), torch.randn(2, CHANNELS, 3, 4, 5)
    gates = module.gates(x)
    depth = 3 if keep_depth else 1
    shapes = {"channel": (2, CHANNELS, depth, 1, 1), "spatial": (2, 1, 3, 4, 5), "joint": tuple(x.shape)}
    assert all(tuple(values.shape) == shapes[gate] for gate, values in gates.items())
    torch.testing.assert_close(module(x), product(gates, x))


@each_form(without=["simam"])
def test_the_constant_is_the_product_of_the_gates(name: str, neutral: bool) -> None:
    module, x = build(name, neutral=neutral), torch.randn(2, CHANNELS, 6, 5)
    constant = module.make_constant()
    for training in (True, False):
        gates = product(module.train(training).gates(x), torch.ones_like(x))
        torch.testing.assert_close(gates, torch.full_like(x, constant), rtol=0, atol=0)


@pytest.mark.parametrize("neutral", [False, True])
def test_hard_attention_multiplies_nothing(neutral: bool) -> None:
    hard, x = HardAttention(CHANNELS, neutral=neutral), torch.randn(2, CHANNELS, 6, 5)
    both = HarmoniousAttention(CHANNELS, neutral=neutral).eval()
    assert hard.gates(x) == {} and hard.make_constant() == 1
    torch.testing.assert_close(hard(x), HardAttention(CHANNELS)(x), rtol=0, atol=0)
    assert hard.as_part() is hard and hard(x).shape == (2, 4, 2)
    torch.testing.assert_close(both(x)[0], product(both.gates(x), x))
    constant = both.make_constant()
    assert constant == pytest.approx(1 if neutral else 0.75)
    torch.testing.assert_close(both(x)[0], x * constant, rtol=1e-6 if neutral else 0, atol=0)


@pytest.mark.parametrize("name", [n for n in MODULES if parts(BUILDS[n](CHANNELS))] + ["harmonious"])
def test_a_hook_on_a_part_fires_once_a_forward(name: str) -> None:
    module = HarmoniousAttention(CHANNELS) if name == "harmonious" else build(name)
    inside, x = parts(module), torch.randn(2, CHANNELS, 6, 5)
    calls = count_calls(inside)
    for training in (True, False):
        for context in (torch.enable_grad, torch.no_grad):
            calls.clear()
            with context():
                module.train(training)(x)
            assert calls == Counter(inside)
    calls.clear()
    module.gates(x)
    assert not calls, "reading the gates is no forward"


def test_hooks_fire_in_a_network() -> None:
    model = timm.create_model("cbam_mobilenetv2_100")
    gates = [m for m in model.modules() if isinstance(m, SpatialGate)]
    calls = count_calls(gates)
    with torch.no_grad():
        model.eval()(torch.randn(1, 3, 32, 32))
    assert len(gates) == 17 and calls == Counter(gates)


def test_a_hook_sees_the_logits_of_a_part() -> None:
    """And they stay as they were: no module overwrites what a part returned."""
    for name in [n for n in MODULES if parts(BUILDS[n](CHANNELS))]:
        module, x = build(name).eval(), torch.randn(2, CHANNELS, 6, 5)
        seen: list[tuple[Tensor, Tensor]] = []
        for part in parts(module):
            part.register_forward_hook(lambda m, inputs, output, seen=seen: seen.append((output, output.clone())))
        with torch.no_grad():
            module(x)
        assert seen and all(torch.equal(output, before) for output, before in seen), name


@each_class
def test_no_attribute_looks_like_a_protocol(kind: type[Attention]) -> None:
    """timm.utils.reparameterize_model calls these where it finds them."""
    for module in kind(CHANNELS).modules():
        for protocol in ("fuse", "reparameterize", "switch_to_deploy"):
            assert not hasattr(module, protocol), f"{type(module).__name__}.{protocol}"


@pytest.mark.parametrize("name", ["bam_resnet18", "scse_resnet18"])
def test_timm_reparameterizes_the_networks(name: str) -> None:
    model, x = randomised(timm.create_model(name)).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(reparameterize_model(model)(x), model(x), rtol=0, atol=0)


def test_timm_asks_a_gate_whether_it_takes_a_ratio() -> None:
    """EfficientNet's builder takes a TypeError for no."""
    with pytest.raises(TypeError, match="rd_ratio"):
        SqueezeExcite(8, rd_ratio=1.0)
