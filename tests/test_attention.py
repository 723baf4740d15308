"""The modules against the formulas of the papers, written naively here, and on every kind of input."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attention import BAM, CBAM, ChannelGate, Gate, SpatialGate, SqueezeExcite
from zoo.attention.excitation import hidden_width

BUILDS: dict[str, Callable[..., nn.Module]] = {
    "se": SqueezeExcite,
    "se_nobias": lambda c, **k: SqueezeExcite(c, bias=False, **k),
    "channel": ChannelGate,
    "spatial": lambda c, **k: SpatialGate(**k),
    "spatial3_nonorm": lambda c, **k: SpatialGate(3, norm=False, **k),
    "cbam": CBAM,
    "cbam_blog": lambda c, **k: CBAM(c, kernel_size=3, bias=False, norm=False, **k),
    "cbam_reversed": lambda c, **k: CBAM(c, arrangement="spatial_channel", **k),
    "cbam_parallel": lambda c, **k: CBAM(c, arrangement="parallel", **k),
    "bam": BAM,
    "bam_mul": lambda c, **k: BAM(c, fuse="mul", **k),
    "bam_end_norm": lambda c, **k: BAM(c, end_norm=True, **k),
}
MODULES = sorted(BUILDS)
CHANNELS = 32


def randomised(module: nn.Module) -> nn.Module:
    """Give every norm weights and statistics that would show if it were left out or misplaced."""
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            assert m.running_mean is not None and m.running_var is not None
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.3)
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return module


def build(name: str, **kwargs: object) -> nn.Module:
    return randomised(BUILDS[name](CHANNELS, **kwargs))


# ---- the formulas, one loop a sample, a channel or a place at a time ------------------------------------------


def naive_mlp(gate: SqueezeExcite | ChannelGate, z: Tensor) -> Tensor:
    w1, w2 = gate.fc1.weight, gate.fc2.weight
    b1 = gate.fc1.bias if gate.fc1.bias is not None else torch.zeros(len(w1))
    b2 = gate.fc2.bias if gate.fc2.bias is not None else torch.zeros(len(w2))
    return w2 @ (w1 @ z + b1).clamp(min=0) + b2


def naive_bn(bn: nn.Module, x: Tensor) -> Tensor:
    if isinstance(bn, nn.Identity):
        return x
    assert isinstance(bn, nn.modules.batchnorm._BatchNorm)
    assert bn.running_mean is not None and bn.running_var is not None
    shape = (-1,) + (1,) * (x.ndim - 1)
    mean, var, w, b = (t.view(shape) for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return (x - mean) / (var + bn.eps).sqrt() * w + b


def naive_se(m: SqueezeExcite, x: Tensor) -> Tensor:
    rows = []
    for image in x:
        z = torch.stack([plane.sum() / plane.numel() for plane in image])
        s = torch.sigmoid(naive_mlp(m, z))
        rows.append(torch.stack([plane * s[c] for c, plane in enumerate(image)]))
    return torch.stack(rows)


def naive_channel(m: ChannelGate, image: Tensor) -> Tensor:
    avg = torch.stack([plane.sum() / plane.numel() for plane in image])
    peak = torch.stack([plane.flatten().sort().values[-1] for plane in image])
    return torch.sigmoid(naive_mlp(m, avg) + naive_mlp(m, peak))[:, None, None]


def naive_spatial(m: SpatialGate, image: Tensor) -> Tensor:
    stacked = torch.stack([image.sum(0) / len(image), image.sort(0).values[-1]])
    k = m.conv.kernel_size[0]
    padded = F.pad(stacked, (k // 2,) * 4)
    height, width = image.shape[1:]
    logits = torch.empty(height, width)
    for i in range(height):
        for j in range(width):
            logits[i, j] = (padded[:, i : i + k, j : j + k] * m.conv.weight[0]).sum()
    return torch.sigmoid(naive_bn(m.bn, logits[None]))


def naive_cbam(m: CBAM, x: Tensor) -> Tensor:
    naive = {"channel": naive_channel, "spatial": naive_spatial}
    rows = []
    for image in x:
        y = image
        for name, gate in m.named_children():
            y = y * naive[name](gate, image if m.parallel else y)
        rows.append(y)
    return torch.stack(rows)


def naive_bam(m: BAM, x: Tensor) -> Tensor:
    rows = []
    for image in x:
        z = image.mean((1, 2))
        c = m.channel
        hidden = naive_bn(c.bn, c.fc1.weight @ z + c.fc1.bias).clamp(min=0)
        channel = naive_bn(c.end_bn, c.fc2.weight @ hidden + c.fc2.bias)[:, None, None]
        s, y = m.spatial, image[None]
        for name, d in (("reduce", 0), ("conv1", 4), ("conv2", 4)):
            conv, bn = s.trunk.get_submodule(name), s.trunk.get_submodule(f"{name}_bn")
            assert isinstance(conv, nn.Conv2d)
            y = F.conv2d(y, conv.weight, conv.bias, padding=d, dilation=d or 1)
            y = naive_bn(bn, y[0])[None].clamp(min=0)
        spatial = naive_bn(s.end_bn, F.conv2d(y, s.project.weight, s.project.bias)[0])
        joined = channel * spatial if m.multiply else channel + spatial
        rows.append(image * (1 + torch.sigmoid(joined)))
    return torch.stack(rows)


NAIVE = {
    "se": naive_se,
    "se_nobias": naive_se,
    "channel": lambda m, x: torch.stack([image * naive_channel(m, image) for image in x]),
    "spatial": lambda m, x: torch.stack([image * naive_spatial(m, image) for image in x]),
    "spatial3_nonorm": lambda m, x: torch.stack([image * naive_spatial(m, image) for image in x]),
    "cbam": naive_cbam,
    "cbam_blog": naive_cbam,
    "cbam_reversed": naive_cbam,
    "cbam_parallel": naive_cbam,
    "bam": naive_bam,
    "bam_mul": naive_bam,
    "bam_end_norm": naive_bam,
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("size", [(5, 7), (8, 4), (1, 1)])
def test_equals_the_formula(name: str, size: tuple[int, int]) -> None:
    module, x = build(name).eval(), torch.randn(2, CHANNELS, *size)
    torch.testing.assert_close(module(x), NAIVE[name](module, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODULES)
def test_every_layout_and_size(name: str) -> None:
    module = build(name)
    for shape in [(2, CHANNELS, 7, 9), (1, CHANNELS, 13, 4), (3, CHANNELS, 1, 1), (0, CHANNELS, 6, 6)]:
        x = torch.randn(shape)
        for training in (True, False):
            module.train(training)
            y = module(x)
            assert y.shape == x.shape and y.isfinite().all()
        torch.testing.assert_close(module(x.contiguous(memory_format=torch.channels_last)), y)
    assert all(b.isfinite().all() for b in module.buffers()), "an empty batch spoilt the running statistics"


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("size", [(6, 6), (1, 1)])
def test_trains_with_one_sample(name: str, size: tuple[int, int]) -> None:
    module = build(name).train()
    x = torch.randn(1, CHANNELS, *size, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gates_are_fp32_under_autocast(name: str, dtype: torch.dtype) -> None:
    module, x = build(name).eval(), torch.randn(2, CHANNELS, 6, 5).to(dtype)
    seen: list[torch.dtype] = []
    for m in module.modules():
        if isinstance(m, Gate):
            excite = m.excite
            m.excite = lambda s, excite=excite: seen.append((y := excite(s)).dtype) or y
    with torch.autocast("cpu", dtype):
        y = module(x)
    assert y.dtype == dtype
    assert set(seen) == {torch.float32}
    exact = build(name).eval()
    exact.load_state_dict(module.state_dict())
    torch.testing.assert_close(y.float(), exact(x.float()), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("name", MODULES)
def test_pure_low_precision_and_double(name: str) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        x = torch.randn(2, CHANNELS, 6, 5, dtype=dtype)
        assert build(name, dtype=dtype)(x).dtype == dtype


@pytest.mark.parametrize("name", MODULES)
def test_gradients(name: str) -> None:
    module = build(name).double().eval()
    x = torch.randn(2, CHANNELS, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), eps=1e-6, atol=1e-5, fast_mode=True)


@pytest.mark.parametrize("name", MODULES)
def test_compile_without_graph_breaks(name: str) -> None:
    torch.compiler.reset()  # one test does not count as a recompilation of another
    module, x = build(name).eval(), torch.randn(2, CHANNELS, 6, 5)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(compiled(x.bfloat16()), module(x.bfloat16()), rtol=0, atol=0)


@pytest.mark.parametrize("name", MODULES)
def test_export_with_dynamic_size(name: str) -> None:
    module, dim = build(name).eval(), torch.export.Dim
    shapes = ({0: dim("b", min=1), 2: dim("h", min=1), 3: dim("w", min=1)},)
    exported = torch.export.export(module, (torch.randn(2, CHANNELS, 16, 16),), dynamic_shapes=shapes).module()
    x = torch.randn(3, CHANNELS, 13, 6)
    torch.testing.assert_close(exported(x), module(x))


@pytest.mark.parametrize("name", MODULES)
def test_torchscript_and_fx(name: str) -> None:
    module, x = build(name).eval(), torch.randn(2, CHANNELS, 6, 5)
    with warnings.catch_warnings():
        # torch deprecates torch.jit, which timm's suite uses, as one or the other.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        torch.testing.assert_close(torch.jit.script(module)(x), module(x))
    for training in (True, False):
        traced = torch.fx.symbolic_trace(module.train(training))
    torch.testing.assert_close(traced(x), module(x))


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("bam")])
def test_gate_damps_only(name: str) -> None:
    module, x = build(name).eval(), torch.rand(2, CHANNELS, 6, 5)
    assert ((module(x) >= 0) & (module(x) <= x)).all()


def test_invariances() -> None:
    x = torch.randn(2, CHANNELS, 6, 5)
    places, channels = torch.randperm(30), torch.randperm(CHANNELS)
    channel_gate, spatial_gate = ChannelGate(CHANNELS).eval(), SpatialGate().eval()
    shuffled = x.flatten(2)[:, :, places].view_as(x)
    torch.testing.assert_close(channel_gate.gate(shuffled), channel_gate.gate(x))
    torch.testing.assert_close(spatial_gate.gate(x[:, channels]), spatial_gate.gate(x))


def test_hidden_width_is_never_zero() -> None:
    assert hidden_width(8, 16) == 1 and hidden_width(64, 16) == 4 and hidden_width(100, 16) == 6
    for module in (SqueezeExcite(3), CBAM(3), BAM(3)):
        assert module(torch.randn(2, 3, 5, 5)).shape == (2, 3, 5, 5)


@pytest.mark.parametrize("name", MODULES)
def test_make_constant(name: str) -> None:
    module, x = build(name), torch.randn(2, CHANNELS, 6, 5)
    constant = module.make_constant()
    for training in (True, False):
        torch.testing.assert_close(module.train(training)(x), x * constant, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("construct", "says"),
    [
        (lambda: SqueezeExcite(64, reduction=0), "reduction must be .* not 0"),
        (lambda: CBAM(64, reduction=-4), "not -4"),
        (lambda: CBAM(64, kernel_size=4), "odd whole number such as 3, 5 or 7, not 4"),
        (lambda: CBAM(64, arrangement="sideways"), "one of channel_spatial, .* not 'sideways'"),
        (lambda: BAM(64, fuse="sum"), "one of add, mul, not 'sum'"),
        (lambda: BAM(64, dilation=0), "dilation must be .* not 0"),
    ],
)
def test_wrong_arguments(construct: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        construct()


@pytest.mark.parametrize("layer", [SqueezeExcite, CBAM, BAM])
def test_fits_timms_slots(layer: type[nn.Module]) -> None:
    from timm.models.efficientnet import EfficientNet, decode_arch_def
    from timm.models.resnet import BasicBlock, ResNet

    x = torch.randn(2, 3, 32, 32)
    resnet = ResNet(BasicBlock, (1, 1, 1, 1), block_args={"attn_layer": layer})
    mobile = EfficientNet(decode_arch_def([["ir_r1_k3_s2_e6_c24_se0.25"]]), se_layer=layer)
    for model in (resnet, mobile):
        assert any(isinstance(m, layer) for m in model.modules())
        assert model(x).shape == (2, 1000)
