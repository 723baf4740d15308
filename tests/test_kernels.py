"""The kernels against the eager form: same values, same gradients, and out of the way where eager is wanted."""

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from formulas import randomised
from torch import Tensor, nn
from torch_threads import torch_threads

from zoo.attention import BAM, CBAM, ECA, Attention, CoordAttention, ScSE, SqueezeExcite, kernels
from zoo.attention.kernels import choice

pytest.importorskip("numba", reason="the kernels need numba, the extra `fast`")

import numba
from numba.core.caching import CacheImpl

from zoo.attention.kernels import cbam as cbam_kernel
from zoo.attention.kernels import gated, maps, means, plane_convolution  # noqa: F401  whose operations are tested
from zoo.attention.kernels import se as se_kernel
from zoo.attention.kernels.compiled import compiled

BUILDS: dict[str, Callable[..., Attention]] = {
    "cbam": CBAM,
    "se": SqueezeExcite,
    "se_nobias": lambda c, **k: SqueezeExcite(c, bias=False, **k),
    "bam": BAM,
    "eca": ECA,
    "scse": ScSE,
    "scse_max": lambda c, **k: ScSE(c, fuse="max", **k),
    "coord": CoordAttention,
    "cbam_blog": lambda c, **k: CBAM(c, kernel_size=3, bias=False, norm=False, **k),
}
OPERATIONS = ("cbam", "se", "amplify", "weigh_sum", "weigh_strips", "mean", "strip_means", "convolve")
LAYOUTS = {
    "channels_last": lambda x: x.contiguous(memory_format={4: torch.channels_last, 5: torch.channels_last_3d}[x.ndim]),
    "contiguous": lambda x: x.contiguous(),
    "strided": lambda x: torch.stack((x, x), -1)[..., 0],
}
each_build = pytest.mark.parametrize("name", BUILDS)
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The passes over maps that kernels went, by name."""
    seen: list[str] = []

    def counted(go: Any, *arguments: Any) -> None:
        seen.append(go.__name__)
        maps.over_images(go, *arguments)

    for kernel in (cbam_kernel, gated, means, se_kernel):
        monkeypatch.setattr(kernel, "over_images", counted)
    yield seen


def build(name: str, channels: int = 32, **kwargs: Any) -> Attention:
    return randomised(BUILDS[name](channels, **kwargs))


def map_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """As behind a ReLU and coarsely rounded, so that maxima are shared and some channels are all zero."""
    return (torch.randn(shape) * 8).round().div(8).relu().to(dtype)


def outcome(module: nn.Module, x: Tensor, way: str) -> dict[str, Tensor]:
    """What the module returns, all gradients, and its buffers afterwards."""
    state = {key: value.clone() for key, value in module.state_dict().items()}
    x = x.detach().requires_grad_()
    with kernels(way):
        y = module(x)
    slopes = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(y.dtype)
    wanted = [x, *module.parameters()]
    names = ["x", *(name for name, _ in module.named_parameters())]
    found = {f"gradient of {k}": g for k, g in zip(names, torch.autograd.grad(y, wanted, slopes), strict=True)}
    found |= {key: value.clone() for key, value in module.named_buffers()}
    module.load_state_dict(state)
    return {"y": y.detach(), **found}


def largest_of(x: Tensor) -> float:
    """The largest of its finite values."""
    finite = x[x.isfinite()].abs()
    return float(finite.max()) if len(finite) else 0.0


def assert_same(module: nn.Module, x: Tensor) -> None:
    """Within 1e-5 of eager fp64, NaN and infinities at the same places as in eager fp32.

    1e-5 of a tensor's largest value. A gradient that is a small sum of large terms of both signs is not known so well
    in fp32, such as that of a bias in front of a batch norm, which is one of rounding errors alone. There the kernel
    may err by 2e-6 of the largest of all gradients, or as eager fp32 does, whose error is another draw of
    the same rounding, so four times as much. Over many inputs its errors are the smaller ones.
    """
    exact = outcome(copy.deepcopy(module).double(), x.double(), "off")
    eager, found = outcome(module, x, "off"), outcome(module, x, "auto")
    # PyTorch's convolutions in fp64 have NaN in more places than those in fp32.
    exact = {name: torch.where(values.isfinite(), values, eager[name]) for name, values in exact.items()}
    steepest = max(largest_of(values) for name, values in exact.items() if "gradient" in name)
    for name, values in found.items():
        assert values.shape == eager[name].shape and values.dtype == eager[name].dtype, name
        for of_kind in (torch.isnan, torch.isposinf, torch.isneginf):
            assert torch.equal(of_kind(values), of_kind(eager[name])), f"{name}: {of_kind.__name__} is elsewhere"
        error, of_eager = (largest_of(each - exact[name]) for each in (values, eager[name]))
        bound = max(1e-5 * largest_of(exact[name]), 4 * of_eager, 2e-6 * steepest if "gradient" in name else 0.0)
        assert error <= bound, f"{name}: {error:.2e} from exact, where {bound:.2e} is allowed"


@each_build
@each_layout
@pytest.mark.parametrize("neutral", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_equals_eager(name: str, layout: str, neutral: bool, training: bool, calls: list[str]) -> None:
    assert_same(build(name, neutral=neutral).train(training), LAYOUTS[layout](map_of(3, 32, 7, 9)))
    assert calls, "the kernel did not run"


@each_layout
@pytest.mark.parametrize("channels", [1, 2, 3, 17, 100, 2048])
def test_equals_eager_at_every_size(channels: int, layout: str) -> None:
    assert_same(build("se", channels), LAYOUTS[layout](map_of(2, channels, 3, 5)))
    for shape in [(2, channels, 1, 1), (1, channels, 1, 13), (2, channels, 8, 3), (0, channels, 4, 4)]:
        assert_same(build("cbam", channels).eval(), LAYOUTS[layout](map_of(*shape)))
        if shape[2:] != (1, 1):  # a norm of two values has a gradient of rounding errors alone
            assert_same(build("cbam", channels).train(), LAYOUTS[layout](map_of(*shape)))


@pytest.mark.parametrize("name", [name for name in BUILDS if name != "coord"])
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_volumes_equal_eager(name: str, layout: str, calls: list[str]) -> None:
    for size in [(3, 5, 4), (1, 1, 1)]:
        assert_same(build(name, 8, dims=3), LAYOUTS[layout](map_of(2, 8, *size)))
    assert calls


OVER_MAPS = ("bam", "scse", "scse_max")
"""Those with convolutions over the whole map, which need autocast where that is in bf16."""
IN_TWO_PARTS = ("eca", "coord")
"""Those whose gradient of the map is a sum of two maps, each rounded."""


@pytest.mark.parametrize("name", [name for name in BUILDS if name not in OVER_MAPS])
@pytest.mark.parametrize("layout", ["channels_last", pytest.param("contiguous", marks=pytest.mark.every)])
def test_maps_in_bf16_are_computed_in_fp32(name: str, layout: str) -> None:
    """Against fp32 from the same numbers: only what is written is rounded."""
    least = 2**-8 if name in IN_TWO_PARTS else 1e-4
    module, x = build(name), LAYOUTS[layout](map_of(3, 32, 7, 9, dtype=torch.bfloat16))
    exact, found = outcome(module, x.float(), "off"), outcome(module, x, "auto")
    assert found["y"].dtype == found["gradient of x"].dtype == torch.bfloat16
    for key, values in found.items():
        expected = exact[key].bfloat16() if values.dtype == torch.bfloat16 else exact[key]
        tolerance = {"rtol": 2**-7, "atol": least} if key in ("y", "gradient of x") else {"rtol": 1e-2, "atol": 1e-2}
        torch.testing.assert_close(values, expected, **tolerance, msg=lambda m, key=key: f"{key}: {m}")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(outcome(module, x, "auto"), found, rtol=0, atol=0)


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_as_in_eager(value: float, layout: str) -> None:
    for shape in [(2, 32, 5, 7), (1, 3, 1, 1)]:
        for place in [(0, 1, 0, 0), (-1, 2, -1, -1)]:
            x = map_of(*shape)
            x[place] = value
            for name in ("se", "cbam_blog", "cbam"):
                assert_same(build(name, shape[1]).eval(), LAYOUTS[layout](x))


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("neutral", [False, True])
def test_the_end_of_bam(neutral: bool, layout: str) -> None:
    """In bf16, at infinities and NaN, and at logits where the exponential overflows."""
    x, amplitude = LAYOUTS[layout](map_of(2, 32, 5, 7, dtype=torch.bfloat16)), 1 / 3 if neutral else 1.0
    x[0, 1, 2, 3], x[1, 2, 3, 4] = torch.nan, -torch.inf
    channel, spatial = torch.randn(2, 32, 1, 1), torch.randn(2, 1, 5, 7) * 3
    spatial[0, 0, :2, 0], spatial[1, 0, :2, 0] = torch.tensor([200.0, -200.0]), torch.tensor([torch.inf, torch.nan])
    slopes, found = torch.randn(2, 32, 5, 7), []
    for form, dtype in ((gated.amplify, torch.bfloat16), (gated.amplified, torch.float32)):
        leaves = [each.detach().requires_grad_() for each in (x.to(dtype), channel, spatial)]
        y = form(*leaves, amplitude, neutral)
        found.append([y.detach(), *torch.autograd.grad(y, leaves, slopes.bfloat16().to(dtype))])
    for values, expected in zip(*found, strict=True):
        torch.testing.assert_close(values.float(), expected, rtol=2**-7, atol=1e-4, equal_nan=True)


@each_build
def test_gradients(name: str) -> None:
    module = build(name, 8, dtype=torch.double).eval()
    x = LAYOUTS["channels_last"](torch.randn(2, 8, 3, 4, dtype=torch.double)).requires_grad_()
    parameters = list(module.parameters())
    assert torch.autograd.gradcheck(lambda *_: module(x), (x, *parameters), eps=1e-6, atol=1e-5)
    assert torch.autograd.gradgradcheck(module, (x,), eps=1e-6, atol=1e-5, fast_mode=True)


@each_build
def test_second_derivatives_are_those_of_eager(name: str) -> None:
    module, x = build(name, dtype=torch.double), map_of(2, 32, 3, 4, dtype=torch.double).requires_grad_()
    found = []
    for way in ("auto", "off"):
        with kernels(way):
            first = torch.autograd.grad(module(x).square().sum(), (x, *module.parameters()), create_graph=True)
            found.append(torch.autograd.grad(sum(g.square().sum() for g in first), x)[0])
    torch.testing.assert_close(found[0], found[1])


@each_build
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.func about torch.jit
def test_kernels_stay_out_of_transforms(name: str, calls: list[str]) -> None:
    module, x = build(name).eval(), map_of(2, 32, 3, 4)
    with kernels("off"):
        y, slope = torch.func.jvp(module, (x,), (x,))
        each = torch.func.vmap(lambda image: module(image[None])[0])(x)
    torch.testing.assert_close(torch.func.jvp(module, (x,), (x,)), (y, slope), rtol=0, atol=0)
    torch.testing.assert_close(torch.func.vmap(lambda image: module(image[None])[0])(x), each, rtol=0, atol=0)
    with torch.autograd.forward_ad.dual_level():
        module(torch.autograd.forward_ad.make_dual(x, x))
    assert not calls


def with_a_hook(module: nn.Module) -> None:
    next(module.children()).register_forward_hook(lambda *_: None)


def with_another_activation(module: nn.Module) -> None:
    [*_, owner] = (part for part in module.modules() if hasattr(part, "act"))
    owner.act = nn.SiLU()  # pyright: ignore


def with_another_norm(module: CBAM) -> None:
    assert module.spatial is not None
    module.spatial.bn = nn.SyncBatchNorm(1)


def with_a_weight_norm(module: CBAM) -> None:
    assert module.channel is not None
    nn.utils.parametrizations.weight_norm(module.channel.fc1)


class Elsewhere(torch.Tensor):
    """As a quantised weight is: one whose own memory does not hold its numbers."""


def with_a_weight_of_another_class(module: CBAM) -> None:
    assert module.channel is not None
    module.channel.fc1.weight = nn.Parameter(module.channel.fc1.weight.detach().as_subclass(Elsewhere))


CHANGES = [
    with_a_hook,
    with_another_activation,
    with_another_norm,
    with_a_weight_norm,
    with_a_weight_of_another_class,
]


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_kernel_does_not_know_is_eager(change: Callable[[Any], None], calls: list[str]) -> None:
    """Step by step, of which a mean has a kernel, too."""
    module = build("cbam").eval()
    change(module)
    module(map_of(2, 32, 3, 4))
    assert "cbam_forward" not in calls


@pytest.mark.parametrize(("dtype", "parameters"), [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_other_precisions_are_eager(dtype: torch.dtype, parameters: torch.dtype, calls: list[str]) -> None:
    module = build("cbam", dtype=parameters)
    module(map_of(2, 32, 3, 4, dtype=dtype))
    assert not calls


@each_build
def test_the_neutral_form_starts_exactly_at_one(name: str, calls: list[str]) -> None:
    module = build(name, neutral=True)
    module.make_constant()
    for dtype in (torch.float32, torch.bfloat16):
        for training in (True, False):
            x = map_of(2, 32, 5, 3, dtype=dtype)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                assert torch.equal(module.train(training)(x), x) and calls


def test_off_is_the_eager_form(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = build("cbam"), map_of(2, 32, 5, 3)
    with kernels("off"):
        module(x)
        with kernels("auto"):
            assert not calls
            module(x)
        assert calls
    with pytest.raises(ValueError, match="kernels must be one of auto, off, triton, not 'fast'"), kernels("fast"):
        pass
    calls.clear()
    monkeypatch.setattr(choice, "_default", choice._default.__wrapped__)
    monkeypatch.setenv("ZOO_KERNELS", "off")
    module(x)
    assert not calls
    monkeypatch.setenv("ZOO_KERNELS", "never")
    with pytest.raises(ValueError, match="ZOO_KERNELS must be one of auto, off, triton, not 'never'"):
        module(x)


def test_without_numba_the_eager_form_runs(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_default", choice._default.__wrapped__)
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    build("cbam")(map_of(2, 32, 5, 3))
    for way in ("auto", "triton"):
        with kernels(way):
            build("cbam")(map_of(2, 32, 5, 3))
            assert choice.in_words().startswith("eager attention, as numba is missing")
    assert not calls


def double(x: Any) -> None:
    x[:] = x * 2


def shifted(x: Any, far: Any) -> None:
    x[:] = x + 1 if far is None else x - 1


def test_a_file_of_another_type_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that write at once may give one file to two types."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for far in (None, True):
        compiled(shifted)(torch.zeros(2).numpy(), far)
    one, other = sorted(tmp_path.rglob("*.nbc"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    for far, expected in ((None, 1), (True, -1)):
        x = torch.zeros(2)
        compiled(shifted)(x.numpy(), far)
        assert x.tolist() == [expected] * 2


@pytest.mark.parametrize("place", ["gone", "nowhere"])
def test_a_cache_that_cannot_be_written_to_is_no_error(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gone between import and first call, as on a read-only disk; or numba found no folder at all."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder))
    if place == "nowhere":
        monkeypatch.setattr(CacheImpl, "_locator_classes", [])
    function = compiled(double)
    if place == "gone":
        shutil.rmtree(folder)
        folder.write_text("")
    x = torch.ones(3).numpy()
    function(x)
    assert x.tolist() == [2, 2, 2]


def test_threads_change_no_bit() -> None:
    module, x = build("cbam"), torch.randn(5, 32, 64, 65)
    alone = outcome(module, x, "auto")
    with torch_threads(3):
        several = outcome(module, x, "auto")
    assert all(torch.equal(several[key], alone[key]) for key in ("y", "gradient of x"))


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_registered_as_they_should_be(name: str, layout: str) -> None:
    """Strides, too: a compiler goes by those of the fake operation."""
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    cbam, se = (build(each, 8).to(memory_format=formats[layout]) for each in ("cbam", "se"))  # pyright: ignore
    layers = {"cbam": cbam.parts(), "se": se.parts()}
    places, rows, columns = (torch.rand(2, *shape) for shape in ((1, 5, 3), (8, 5, 1), (8, 1, 3)))
    gates = torch.rand(2, 8, 1, 1), places
    others: dict[str, tuple[Any, ...]] = {**layers, "amplify": (*gates, 0.5, True), "weigh_sum": gates}
    others |= {"weigh_strips": (rows, columns), "mean": (), "strip_means": ()}
    others["convolve"] = torch.randn(1, 1, 3, 3), torch.randn(1), 2
    x = LAYOUTS[layout](map_of(2, 1 if name == "convolve" else 8, 5, 3)).requires_grad_()
    arguments = [a.detach().requires_grad_(a.is_leaf) if isinstance(a, Tensor) else a for a in others[name]]
    operation = getattr(torch.ops.zoo, name)
    found = operation(x, *arguments)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operation.default, (x, *arguments), test_utils=tests)
    if hasattr(torch.ops.zoo, f"{name}_backward"):
        y, *kept = found if isinstance(found, tuple) else (found,)
        kept = kept[: len(cbam_kernel.Saved._fields)]  # what follows are CBAM's new running statistics
        backward = getattr(torch.ops.zoo, f"{name}_backward").default
        tests = ("test_schema", "test_faketensor")
        torch.library.opcheck(backward, (torch.randn_like(y), x, *arguments, *kept), test_utils=tests)


@pytest.mark.parametrize(
    ("name", "channels", "whole"),
    [("cbam", 8, [True, False, True]), ("cbam", 128, [True, False, False]), ("se", 8, [False, False])],
)
def test_torch_compile_keeps_whole_what_is_faster_so(name: str, channels: int, whole: list[bool]) -> None:
    """In training, within kernels("off"), which SE does not ask for, in inference; an export has none of ours."""
    module, x, graphs = build(name, channels).eval(), map_of(2, channels, 5, 3), list[str]()

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        graphs.append(graph.code)
        return graph

    compiled_module: Any = torch.compile(module, backend=keep, fullgraph=True)
    torch.testing.assert_close(compiled_module(x), module(x))
    with kernels("off"):
        torch.testing.assert_close(compiled_module(x), module(x))
    torch.testing.assert_close(compiled_module(x), module(x))
    with torch.inference_mode():
        torch.testing.assert_close(compiled_module(x), module(x))
    assert [f"zoo.{name}" in code for code in graphs] == whole
    assert "zoo" not in torch.export.export(module, (x,)).graph_module.code


FIRST = """
import sys, torch
from zoo.attention import CBAM
torch.manual_seed(0)
x = torch.randn(4, 16, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
y = CBAM(16)(x)
(gradient,) = torch.autograd.grad(y.square().sum(), x)
torch.save((y, gradient), sys.argv[1])
"""


@pytest.mark.every
def test_a_process_that_compiles_rounds_as_one_that_does_not(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    for name in ("first", "second"):
        subprocess.run([sys.executable, "-c", FIRST, str(tmp_path / name)], env=environment, check=True)
    first, second = (torch.load(tmp_path / name) for name in ("first", "second"))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("module", [SqueezeExcite, CBAM, BAM])
def test_memory_may_still_be_resized(module: type[Attention]) -> None:
    """As `fully_shard` frees parameters between two uses; a tensor that NumPy has seen refuses that for good."""
    gate: Any = module(16)
    x = torch.randn(2, 16, 6, 6, requires_grad=True)
    gate(x).sum().backward()
    assert all(each.untyped_storage().resizable() for each in (x, *gate.parameters()))
