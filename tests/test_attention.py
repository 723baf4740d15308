"""The modules against the formulas of the papers (tests/formulas.py), and on every kind of input."""

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from formulas import CHANNELS, MODULES, build, each_form, naive, naive_crop, randomised
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.attention import (
    BAM,
    CBAM,
    ECA,
    ChannelGate,
    CoordAttention,
    HardAttention,
    HarmoniousAttention,
    ScSE,
    SimAM,
    SoftAttention,
    SpatialGate,
    SqueezeExcite,
    kernels,
)
from zoo.attention.excitation import hidden_width

OWN_CODE = ("se", "cbam", "bam", "bam_mul", "bam_max", "bam_channel", "coord", "scse_max", "scse_mul", "triplet", "ha")
"""Builds whose neutral form is code of its own; the others differ from one of them before the logits alone."""
both_forms = pytest.mark.parametrize("neutral", [False, True], ids=["published", "neutral"])


@each_form()
@pytest.mark.parametrize("size", [(5, 7), (8, 4), (1, 1)])
def test_equals_the_formula(name: str, neutral: bool, size: tuple[int, int]) -> None:
    module, x = build(name, neutral=neutral).eval(), torch.randn(2, CHANNELS, *size)
    torch.testing.assert_close(module(x), naive(name, module, x), rtol=1e-5, atol=1e-6)


@each_form()
def test_every_layout_and_size(name: str, neutral: bool) -> None:
    module = build(name, neutral=neutral)
    for shape in [(2, CHANNELS, 7, 9), (1, CHANNELS, 13, 4), (3, CHANNELS, 1, 1), (0, CHANNELS, 6, 6)]:
        x = torch.randn(shape)
        for training in (True, False):
            module.train(training)
            y = module(x)
            assert y.shape == x.shape and y.isfinite().all()
        last = module(x.contiguous(memory_format=torch.channels_last))
        assert last.is_contiguous(memory_format=torch.channels_last) or not len(x)
        torch.testing.assert_close(last, y)
    assert all(b.isfinite().all() for b in module.buffers()), "an empty batch spoilt the running statistics"


@each_form()
@pytest.mark.parametrize("size", [(6, 6), (1, 1)])
def test_trains_with_one_sample(name: str, neutral: bool, size: tuple[int, int]) -> None:
    module = build(name, neutral=neutral).train()
    x = torch.randn(1, CHANNELS, *size, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


class Sigmoids(TorchDispatchMode):
    """Notes in which precision sigmoids are taken, or tanh, which is one of twice the width."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__.partition(".")[0] in ("sigmoid", "sigmoid_", "tanh", "tanh_"):
            self.dtypes.add(args[0].dtype)
        return func(*args, **(kwargs or {}))


@each_form()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gates_are_fp32_under_autocast(name: str, neutral: bool, dtype: torch.dtype) -> None:
    module, x = build(name, neutral=neutral).eval(), torch.randn(2, CHANNELS, 6, 5).to(dtype)
    with Sigmoids() as seen, torch.autocast("cpu", dtype):
        y = module(x)
    assert y.dtype == dtype
    assert seen.dtypes == {torch.float32}
    exact = build(name, neutral=neutral).eval()
    exact.load_state_dict(module.state_dict())
    torch.testing.assert_close(y.float(), exact(x.float()), rtol=2e-2, atol=2e-2)


@each_form()
def test_pure_low_precision_and_double(name: str, neutral: bool) -> None:
    for dtype in (torch.bfloat16, torch.float64):
        x = torch.randn(2, CHANNELS, 6, 5, dtype=dtype)
        assert build(name, neutral=neutral, dtype=dtype)(x).dtype == dtype


@each_form()
def test_gradients(name: str, neutral: bool) -> None:
    module = build(name, neutral=neutral).double().eval()
    x = torch.randn(2, CHANNELS, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), eps=1e-6, atol=1e-5, fast_mode=True)


@each_form(neutral=OWN_CODE, published=("simam", "eca"))
def test_compile_without_graph_breaks(name: str, neutral: bool) -> None:
    torch.compiler.reset()  # one test does not count as a recompilation of another
    module, x = build(name, neutral=neutral).eval(), torch.randn(2, CHANNELS, 6, 5)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), module(x))
    with torch.autocast("cpu", torch.bfloat16), kernels("off"):  # which compute bf16 maps in fp32
        torch.testing.assert_close(compiled(x.bfloat16()), module(x.bfloat16()), rtol=0, atol=0)


@each_form(neutral=OWN_CODE, published=("simam", "eca"))
def test_export_with_dynamic_size(name: str, neutral: bool) -> None:
    module, dim = build(name, neutral=neutral).eval(), torch.export.Dim
    least = 3 if name in ("ha", "ha_spatial") else 1  # one place left behind the stride is a case of its own
    shapes = ({0: dim("b", min=1), 2: dim("h", min=least), 3: dim("w", min=least)},)
    exported = torch.export.export(module, (torch.randn(2, CHANNELS, 16, 16),), dynamic_shapes=shapes).module()
    x = torch.randn(3, CHANNELS, 13, 6)
    torch.testing.assert_close(exported(x), module(x))


@each_form(neutral=OWN_CODE, published=("simam", "eca", "bam_mul"))
def test_torchscript_and_fx(name: str, neutral: bool) -> None:
    module, x = build(name, neutral=neutral).eval(), torch.randn(2, CHANNELS, 6, 5)
    with warnings.catch_warnings():
        # torch deprecates torch.jit, which timm's suite uses, as one or the other.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        torch.testing.assert_close(torch.jit.script(module)(x), module(x))
    for training in (True, False):
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                traced = torch.fx.symbolic_trace(module.train(training))
    torch.testing.assert_close(traced(x), module(x))


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("bam") and n != "scse"])
def test_gate_damps_only(name: str) -> None:
    module, x = build(name).eval(), torch.rand(2, CHANNELS, 6, 5)
    assert ((module(x) >= 0) & (module(x) <= x)).all()


def test_invariances() -> None:
    x = torch.randn(2, CHANNELS, 6, 5)
    places, channels = torch.randperm(30), torch.randperm(CHANNELS)
    channel_gate, spatial_gate = ChannelGate(CHANNELS).eval(), SpatialGate(CHANNELS).eval()
    shuffled = x.flatten(2)[:, :, places].view_as(x)
    torch.testing.assert_close(channel_gate.gates(shuffled), channel_gate.gates(x))
    torch.testing.assert_close(spatial_gate.gates(x[:, channels]), spatial_gate.gates(x))


def test_hidden_width_is_never_zero() -> None:
    assert hidden_width(8, 16) == 1 and hidden_width(64, 16) == 4 and hidden_width(100, 16) == 6
    for module in (SqueezeExcite(3), CBAM(3), BAM(3)):
        assert module(torch.randn(2, 3, 5, 5)).shape == (2, 3, 5, 5)


@each_form(without=["simam"])
def test_make_constant(name: str, neutral: bool) -> None:
    module, x = build(name, neutral=neutral), torch.randn(2, CHANNELS, 6, 5)
    constant = module.make_constant()
    tolerance = 1e-6 if neutral and name.startswith("ha") else 0  # its 4/3 is rounded
    if neutral:
        assert constant == pytest.approx(1, rel=0, abs=tolerance)
    for training in (True, False):
        torch.testing.assert_close(module.train(training)(x), x * constant, rtol=tolerance, atol=0)


@pytest.mark.parametrize(
    ("construct", "says"),
    [
        (lambda: SqueezeExcite(64, reduction=0), "reduction must be .* not 0"),
        (lambda: CBAM(64, reduction=-4), "not -4"),
        (lambda: CBAM(64, kernel_size=4), "odd whole number such as 3, 5 or 7, not 4"),
        (lambda: CBAM(64, arrangement="sideways"), "one of channel_spatial, .* not 'sideways'"),
        (lambda: CBAM(64, channel_pool="mean"), "channel_pool must be one of avg_max, avg, max, not 'mean'"),
        (lambda: CBAM(64, spatial_pool="mean"), "one of avg_max, avg, max, conv, not 'mean'"),
        (lambda: BAM(64, fuse="sum"), "one of add, mul, max, not 'sum'"),
        (lambda: BAM(64, branches="none"), "one of both, channel, spatial, not 'none'"),
        (lambda: SqueezeExcite(64, keep_depth=True), "needs dims=3"),
        (lambda: CBAM(64, dims=4), "dims must be 1 .* or 3 .* not 4"),
        (lambda: ECA(64, kernel_size=2), "odd whole number such as 3, 5 or 7, not 2"),
        (lambda: ScSE(64, fuse="sum"), "one of add, max, mul, not 'sum'"),
        (lambda: SimAM(64, regulariser=0), "above 0"),
        (lambda: HardAttention(64, regions=0), "regions must be .* not 0"),
        (lambda: SimAM(64).make_constant(), "no parameters"),
        (lambda: SimAM(64, neutral=True), "no constant by which .* be divided; leave out neutral=True"),
        (lambda: BAM(64, dilation=0), "dilation must be .* not 0"),
    ],
)
def test_wrong_arguments(construct: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        construct()


def volume_layers() -> dict[str, Callable[..., nn.Module]]:
    blog = {"reduction": 8, "bias": False, "dims": 3}
    return {
        "se": lambda **k: SqueezeExcite(CHANNELS, **blog, **k),
        "channel": lambda **k: ChannelGate(CHANNELS, **blog, **k),
        "spatial": lambda keep_depth=False, **k: SpatialGate(CHANNELS, 3, norm=False, dims=3, **k),
        "spatial7": lambda keep_depth=False, **k: SpatialGate(CHANNELS, 7, norm=False, dims=3, **k),
        "cbam": lambda **k: CBAM(CHANNELS, kernel_size=3, norm=False, **blog, **k),
        "cbam_authors": lambda **k: CBAM(CHANNELS, reduction=8, kernel_size=3, dims=3, **k),
        "bam": lambda **k: BAM(CHANNELS, dims=3, **k),
    }


def naive_by_slice(name: str, module: nn.Module, x: Tensor) -> Tensor:
    """`keep_depth`: a channel gate that sees one slice at a time; the rest as without it."""
    if name.startswith("spatial"):
        return naive(name, module, x)
    slices = x.unbind(2)
    if name in ("se", "channel"):
        return torch.stack([naive(name, module, one) for one in slices], 2)
    if name.startswith("cbam"):
        assert isinstance(module, CBAM)
        y = torch.stack([naive("channel", module.channel, one) for one in slices], 2)
        return naive("spatial", module.spatial, y)
    assert isinstance(module, BAM) and module.spatial is not None and module.channel is not None
    logits = module.channel.logits(x)
    assert logits.shape == (*x.shape[:3], 1, 1)
    one = [module.channel.excite(s.mean((2, 3), keepdim=True)) for s in slices]
    amplified = x * (1 + torch.sigmoid(torch.stack(one, 2) + module.spatial.logits(x)))
    return amplified / 1.5 if module.neutral else amplified


@pytest.mark.parametrize("name", volume_layers())
@both_forms
@pytest.mark.parametrize("depth", [1, 2, 4, 6, 8])
def test_volumes_equal_the_formula(name: str, neutral: bool, depth: int) -> None:
    height, width = (3, 5) if depth % 4 else (4, 2)
    x = torch.randn(2, CHANNELS, depth, height, width)
    module = randomised(volume_layers()[name](neutral=neutral)).eval()
    torch.testing.assert_close(module(x), naive(name, module, x), rtol=1e-5, atol=1e-6)
    by_slice = randomised(volume_layers()[name](keep_depth=True, neutral=neutral)).eval()
    torch.testing.assert_close(by_slice(x), naive_by_slice(name, by_slice, x), rtol=1e-5, atol=1e-6)


def test_depth_four_is_the_blogs_gate() -> None:
    """AdaptiveAvgPool3d((4, 1, 1)) and 1x1x1 convolutions, as written there; it works at this depth alone."""
    gate, x = ChannelGate(CHANNELS, 8, bias=False, keep_depth=True, dims=3), torch.randn(2, CHANNELS, 4, 5, 3)
    w1, w2 = (fc.weight[:, :, None, None, None] for fc in (gate.fc1, gate.fc2))
    pools = (nn.AdaptiveAvgPool3d((4, 1, 1)), nn.AdaptiveMaxPool3d((4, 1, 1)))
    logits = sum(F.conv3d(F.conv3d(pool(x), w1).relu(), w2) for pool in pools)
    torch.testing.assert_close(gate.gates(x)["channel"], torch.sigmoid(logits))


@pytest.mark.parametrize("keep_depth", [False, True])
@both_forms
@pytest.mark.parametrize("name", volume_layers())
def test_volumes_of_every_kind(name: str, neutral: bool, keep_depth: bool) -> None:
    module = volume_layers()[name](keep_depth=keep_depth, neutral=neutral)
    for shape in [(2, CHANNELS, 5, 3, 7), (1, CHANNELS, 1, 1, 1), (0, CHANNELS, 4, 4, 4)]:
        x = torch.randn(shape, requires_grad=True)
        for training in (True, False):
            y = module.train(training)(x)
            assert y.shape == x.shape and y.isfinite().all()
        last = module(x.contiguous(memory_format=torch.channels_last_3d))
        assert last.is_contiguous(memory_format=torch.channels_last_3d) or not len(x)
        torch.testing.assert_close(last, y)
    dim = torch.export.Dim
    shapes = ({0: dim("b", min=1), 2: dim("d", min=1), 3: dim("h", min=1), 4: dim("w", min=1)},)
    exported = torch.export.export(module, (torch.randn(2, CHANNELS, 4, 6, 6),), dynamic_shapes=shapes).module()
    x = torch.randn(3, CHANNELS, 3, 5, 2)
    torch.testing.assert_close(exported(x), module(x))
    with Sigmoids() as seen, torch.autocast("cpu", torch.bfloat16):
        assert module(x.bfloat16()).dtype == torch.bfloat16
    assert seen.dtypes == {torch.float32}
    constant = module.make_constant()
    assert (constant == 1) == neutral
    torch.testing.assert_close(module(x), x * constant, rtol=0, atol=0)


@pytest.mark.parametrize("layer", [ECA, CoordAttention])
def test_equals_timms_layer(layer: type[nn.Module]) -> None:
    """Where timm has a correct one, with the same weights; under autocast it leaves the gate in low precision."""
    from timm.layers import EcaModule
    from timm.layers.coord_attn import CoordAttn

    x = torch.randn(2, CHANNELS, 6, 5)
    ours = randomised(layer(CHANNELS)).eval()
    state, theirs = ours.state_dict(), EcaModule(CHANNELS)
    if layer is CoordAttention:
        names = {"conv.": "conv1.", "bn.": "bn1.", "rows.": "conv_h.", "columns.": "conv_w."}
        theirs = CoordAttn(CHANNELS, rd_channels=8, bias=True)
        state = {new + k.removeprefix(old): v for k, v in state.items() for old, new in names.items() if old in k[:8]}
    theirs.load_state_dict(state)
    torch.testing.assert_close(ours(x), theirs.eval()(x))
    with Sigmoids() as seen, torch.autocast("cpu", torch.bfloat16):
        theirs(x.bfloat16())
    assert seen.dtypes == {torch.bfloat16}, "timm's layer keeps the gate in fp32 now, so it could take our place"


@pytest.mark.parametrize(("channels", "width"), [(16, 3), (64, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)])
def test_width_of_eca(channels: int, width: int) -> None:
    assert ECA(channels).conv.kernel_size == (width,)


def test_soft_attention_stays_above_a_half_and_learns() -> None:
    module, x = SoftAttention(CHANNELS), torch.randn(4, CHANNELS, 9, 5)
    gate = module.gates(x)["joint"]
    assert gate.min() >= 0.5 and gate.max() < 1
    assert module.make_constant() == pytest.approx(0.75)
    module(x).square().mean().backward()
    assert module.bn.bias.grad is not None and (module.bn.bias.grad != 0).all()


@pytest.mark.parametrize("size", [(8, 6), (9, 5)])
def test_hard_attention(size: tuple[int, int]) -> None:
    hard, x = HardAttention(CHANNELS), torch.randn(2, CHANNELS, *size)
    start = [(0, math.tanh(t)) for t in (-0.75, -0.25, 0.25, 0.75)]
    torch.testing.assert_close(hard.locate(x), torch.tensor([start, start]))
    nn.init.normal_(hard.fc.weight, std=0.5)
    centres = hard.locate(x)
    crops = hard.crop(x, centres, 5, 7).unflatten(0, (2, 4))
    for image, region in itertools.product(range(2), range(4)):
        expected = naive_crop(x[image], *centres[image, region].tolist(), 4, 5, 7)
        torch.testing.assert_close(crops[image, region], expected, rtol=1e-4, atol=1e-5)
    assert hard(x).shape == (2, 4, CHANNELS, *size) and hard(x[:0]).shape == (0, 4, CHANNELS, *size)
    hard(x).square().sum().backward()
    assert hard.fc.weight.grad is not None and hard.fc.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("kind", "least"), [(HardAttention, 1), (HarmoniousAttention, 3)])
def test_export_of_regions_with_free_height_and_width(kind: type[nn.Module], least: int) -> None:
    module, dim = kind(CHANNELS).eval(), torch.export.Dim
    shapes = ({0: dim("b", min=1), 2: dim("h", min=least), 3: dim("w", min=least)},)
    exported = torch.export.export(module, (torch.randn(2, CHANNELS, 8, 9),), dynamic_shapes=shapes).module()
    for size in ((least, 7), (11, least)):
        x = torch.randn(3, CHANNELS, *size)
        torch.testing.assert_close(exported(x), module(x))


@pytest.mark.parametrize("regions", [1, 3, 4])
def test_harmonious_attention(regions: int) -> None:
    module, x = HarmoniousAttention(CHANNELS, regions=regions).eval(), torch.randn(2, CHANNELS, 7, 4)
    hard = HardAttention(CHANNELS, regions).eval()
    y, centres = module(x)
    torch.testing.assert_close(y, module.soft(x))
    assert centres.shape == (2, regions, 2)
    torch.testing.assert_close(centres, hard.locate(x))
    height, width = centres[0, :, 1], centres[0, :, 0]
    assert (width == 0).all() and (height.abs() + 1 / regions <= 1).all(), "a region starts outside the map"
    with torch.autocast("cpu", torch.bfloat16):
        y, centres = module(x.bfloat16())
        assert y.dtype == torch.bfloat16 and centres.dtype == torch.float32
        assert hard(x.bfloat16()).dtype == torch.bfloat16


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
