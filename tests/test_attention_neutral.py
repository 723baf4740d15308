"""What only the neutral form promises; that it equals its formula is shown beside the published form."""

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from formulas import CHANNELS, MODULES, build, each_form
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import zoo
from zoo import attention
from zoo.attention import CBAM, ECA, Attention, SimAM, SpatialGate
from zoo.attention.excitation import ChannelExcitation
from zoo.models.attentions import ATTENTIONS

NEUTRAL = [name for name in MODULES if name != "simam"]
IN_VOLUMES = [name for name in NEUTRAL if name.startswith(("se", "channel", "spatial", "cbam", "bam"))]
CLASSES = [
    kind
    for name in attention.__all__
    if inspect.isclass(kind := getattr(attention, name)) and not inspect.isabstract(kind)
]


class FullSize(TorchDispatchMode):
    """Counts the tensors of `size` elements that are written; a view writes none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.written = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.numel() == self.size:
                self.written += not func.is_view
        return result


def passes(module: nn.Module, x: Tensor, autocast: bool) -> dict[str, int]:
    """Full-size tensors written in inference, forward and backward, and kept from forward for backward."""
    x = (x.bfloat16() if autocast else x).detach().requires_grad_()
    kept: list[Tensor] = []
    inference, forward, backward = (FullSize(x.numel()) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with inference, torch.no_grad():
            module.eval()(x)
        with forward, torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            y = module.train()(x)
    gradient = torch.ones_like(y)
    with backward:
        y.backward(gradient)
    return {
        "inference": inference.written,
        "forward": forward.written,
        "backward": backward.written,
        "kept": len({tensor.data_ptr() for tensor in kept if tensor.numel() == x.numel()}),
    }


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "autocast"])
@pytest.mark.parametrize(
    ("name", "dims"), [*((name, 2) for name in NEUTRAL), *((name, 3) for name in IN_VOLUMES)], ids=str
)
def test_no_pass_more(name: str, dims: int, autocast: bool) -> None:
    options = {"dims": 3} if dims == 3 else {}
    x = torch.randn(2, CHANNELS, 7, 9) if dims == 2 else torch.randn(2, CHANNELS, 3, 5, 7)
    published = passes(build(name, **options), x, autocast)
    assert published["inference"] >= 1 and published["backward"] >= 2 and published["kept"] >= 1
    if name == "ha":
        # Its gate is as large as the map, and so are both factors of its product. Published that is `x * gate`;
        # neutral it is addcmul, of which autograd multiplies each factor by the scale before it uses it. A scaled gate
        # would cost inference a pass instead. BAM's is addcmul in both forms.
        published["backward"] += 2
    assert passes(build(name, neutral=True, **options), x, autocast) == published


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_has_both_forms(kind: type[Attention]) -> None:
    assert not kind(CHANNELS).neutral
    if kind is SimAM:  # refused, with the reason: tests/test_attention.py
        return
    published, neutral = kind(CHANNELS), kind(CHANNELS, neutral=True)
    assert neutral.neutral and not published.neutral
    state = published.state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in neutral.state_dict().items()}
    neutral.load_state_dict(state)
    x = torch.randn(2, CHANNELS, 6, 5)
    published.eval(), neutral.eval()
    same = [torch.equal(a, b) for a, b in zip(*(tree_leaves(m(x)) for m in (published, neutral)), strict=True)]
    multiplies_by_less = kind.__name__ not in ("HardAttention", "ScSE")  # no gate; a sum of two halves
    assert same[0] != multiplies_by_less


@each_form()
def test_a_copy_has_the_same_form(name: str, neutral: bool) -> None:
    module, x = build(name, neutral=neutral).eval(), torch.randn(2, CHANNELS, 6, 5)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert twin.neutral == neutral and torch.equal(twin(x), module(x))


def same_start(name: str, **options: Any) -> Attention:
    module = build(name, neutral=True, **options)
    module.make_constant()
    return module


@pytest.mark.parametrize("name", NEUTRAL)
def test_what_has_learnt_nothing_changes_nothing(name: str) -> None:
    module, x = same_start(name), torch.randn(2, CHANNELS, 6, 5)
    tolerance = 1e-6 if name.startswith("ha") else 0  # its 4/3 is rounded
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(module(x), x, rtol=tolerance, atol=0)
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(module(x.bfloat16()), x.bfloat16(), rtol=0, atol=0)
    x.requires_grad_()
    module(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x), rtol=1e-5, atol=1e-5)


@each_form(without=["simam"])
def test_every_parameter_learns_from_the_start(name: str, neutral: bool) -> None:
    """Each has a gradient in the first step or the second; in one of three draws, as a ReLU may be dead by chance."""
    asleep = {key for key, _ in build(name).named_parameters()}
    for _ in range(3):
        module, x, target = build(name, neutral=neutral).train(), *torch.randn(2, 8, CHANNELS, 6, 5)
        module.make_constant()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            (module(x) - target).square().mean().backward()
            asleep -= {key for key, p in module.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
            optimizer.step()
    # Of a maximum of two equal branches one may win everywhere after a step, and the other then waits.
    assert not asleep or (name == "bam_max" and all(key.startswith("spatial.trunk.") for key in asleep))


@pytest.mark.parametrize("name", ["se_resnet20_cifar", "cbam_resnet20_cifar", "se_resnet18"])
def test_no_hidden_unit_of_a_new_network_is_dead(name: str) -> None:
    """Each is above 0 for one of the images at least, where about half of those of the published form are not."""
    images = torch.randn(8, 3, 32, 32)
    dead = {form: _dead_units(name, {"neutral": form}, images) for form in (True, False)}
    assert dead[True] == 0 and dead[False] > 0.2


def _dead_units(name: str, attn_kwargs: dict[str, bool], images: Tensor) -> float:
    """The share of the hidden units that are 0 for all images, in a new network in train mode."""
    torch.manual_seed(0)
    network, alive = timm.create_model(name, attn_kwargs=attn_kwargs), dict[str, Tensor]()

    def see(path: str, hidden: Tensor) -> None:
        alive[path] = (hidden > 0).reshape(-1, hidden.shape[-1]).any(0)

    for path, module in network.named_modules():
        if isinstance(module, ChannelExcitation):
            module.act.register_forward_hook(lambda _, args, output, path=path: see(path, output))
    network(images)
    return 1 - torch.cat(list(alive.values())).float().mean().item()


@pytest.mark.parametrize("arrangement", ["channel_spatial", "spatial_channel", "parallel"])
def test_cbam_is_neutral_gate_by_gate(arrangement: str) -> None:
    """The second gate reads the map as the neutral first one leaves it: no published CBAM times four."""
    module, x = CBAM(CHANNELS, arrangement=arrangement, neutral=True).eval(), torch.randn(2, CHANNELS, 6, 5)
    published = CBAM(CHANNELS, arrangement=arrangement).eval()
    published.load_state_dict(module.state_dict())
    gates = module.gates(x)
    first, second = gates
    alone = {name: module.get_submodule(name) for name in gates}
    assert all(isinstance(gate, Attention) and gate.neutral for gate in alone.values())
    seen = x if arrangement == "parallel" else x * gates[first]
    for name, given in ((first, x), (second, seen)):
        torch.testing.assert_close(gates[name], 2 * torch.sigmoid(alone[name].logits(given)))
    four_times = torch.allclose(module(x), 4 * published(x), rtol=1e-5)
    assert four_times == (arrangement == "parallel")


def test_the_forms_of_the_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    """zoo/attention/README.md names each constant, and both formulas as one can compute them."""
    monkeypatch.syspath_prepend(Path(zoo.__file__).parents[1] / "scripts")
    import readme_tables

    words = {name: getattr(torch, name) for name in ("sigmoid", "tanh", "relu", "maximum")}
    x, a, b, c = torch.randn(4, 100)
    for row in readme_tables.FORMS:
        constant, one = row.module(CHANNELS).make_constant(), row.module(CHANNELS, neutral=True).make_constant()
        published, neutral = (
            eval(text, {**words, "x": x, "a": a, "b": b, "c": c}) for text in (row.published, row.neutral)
        )
        torch.testing.assert_close(neutral, published / constant)
        assert one == pytest.approx(1, abs=1e-6)
        start = torch.tensor(3.0).log() if row.name.startswith("HA") else torch.zeros(())
        at_start = eval(row.published, {**words, "x": x, "a": start, "b": start, "c": start})
        torch.testing.assert_close(at_start, x * constant)
    named = {type(row.module(CHANNELS)) for row in readme_tables.FORMS}
    assert {row.gate for row in ATTENTIONS.values()} - named == {SimAM, ECA, SpatialGate}


def test_a_script_of_each_form_keeps_it() -> None:
    """TorchScript takes modules of one class for one type: each still has its own scale."""
    x = torch.randn(2, CHANNELS, 6, 5)
    for name in ("se", "cbam", "bam", "coord", "triplet", "scse_mul", "ha"):
        pair = [build(name, neutral=neutral).eval() for neutral in (False, True, False)]
        with pytest.warns((DeprecationWarning, FutureWarning)):
            scripts = [torch.jit.script(module) for module in pair]
        for module, script in zip(pair, scripts, strict=True):
            torch.testing.assert_close(script(x), module(x))
