"""`zoo.fuse_for_inference`: the same answers in fewer operations, on every model, and what it says that it did."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from formulas import BUILDS, randomised
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import zoo
from zoo.attention import CBAM, Attention
from zoo.data.input_spec import input_spec
from zoo.export.constant_gates import Scale
from zoo.export.idle_gates import FuseError
from zoo.models.variants import VARIANTS

FAMILIES = [
    "bam_resnet18d",
    "cbam_resnet20_cifar",
    "cbam_mobilenetv1_070",
    "se_mobilenetv2_050",
    "cbam_mobilenetv3_small_100",
    "cbam_mobilenetv4_conv_small",
    "cbam_tf_efficientnet_lite0",
    "hacnn",
    "cbam_resnet18_volume",
]
"""One of each kind of backbone."""


def each_model() -> list[Any]:
    every = [variant.name for variant in VARIANTS]
    assert set(FAMILIES) <= set(every)
    return [pytest.param(name, id=name, marks=() if name in FAMILIES else pytest.mark.every) for name in every]


def made(name: str, **kwargs: Any) -> Any:
    """In double precision: rounding is small then, and what is wrong is large."""
    return randomised(timm.create_model(name, **{"num_classes": 3, **kwargs})).eval().double()


def input_of(model: Any, images: int = 2) -> Tensor:
    spec = input_spec(model)
    return torch.randn(images, spec.channels, *(min(side, 32) for side in spec.size), dtype=torch.double)


def assert_same(fused: nn.Module, model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected, found = model(x), fused(x)
    near = 1e-7 if x.dtype == torch.double else 1e-5
    torch.testing.assert_close(found, expected, rtol=near, atol=near * float(expected.abs().max()))


def norms_in(model: nn.Module) -> list[str]:
    return [name for name, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("name", each_model())
def test_every_model_answers_the_same_without_norms(name: str) -> None:
    model = made(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    x = input_of(model)
    fused = zoo.fuse_for_inference(model, x[:1])
    assert_same(fused, model, x)
    assert norms_in(fused) == [] and set(fused.fusion.norms) == set(norms_in(model)) and not fused.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert fused.fusion.text().startswith(f"{len(norms_in(model))} batch norms folded, 0 left")


@pytest.mark.every
@pytest.mark.parametrize(
    "name",
    [
        "cbam_resnet20_cifar",
        pytest.param("bam_mobilenetv2_050", marks=pytest.mark.every),
        pytest.param("hacnn", marks=pytest.mark.every),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.export about pytree
def test_it_can_be_exported(name: str) -> None:
    model = made(name)
    x = input_of(model)
    fused = zoo.fuse_for_inference(model, x[:1])
    assert_same(torch.export.export(fused, (x,)).module(), model, x)


@pytest.mark.parametrize(
    ("name", "neutral", "left"),
    [
        ("se_resnet20_cifar", True, []),
        ("cbam_resnet20_cifar", False, []),
        ("bam_mobilenetv2_050", False, []),
        ("se_mobilenetv2_050", False, []),
        ("cbam_mobilenetv1_070", False, ["Scale"]),
        ("hacnn", True, ["HarmoniousAttention", "Scale", "HardAttention"] * 3),
        ("cbam_resnet18_volume", False, []),
    ],
)
def test_constant_gates_are_gone(name: str, neutral: bool, left: list[str]) -> None:
    """They go into a convolution; where what they weigh is taken twice or pooled, a factor stays."""
    model = made(name, **{} if name == "hacnn" else {"attn_kwargs": {"neutral": neutral}})
    attention = [m for m in model.modules() if isinstance(m, Attention) and not getattr(m, "part", False)]
    for module in attention:
        module.make_constant()
        for bias in ("channel.fc2.bias", "fc2.bias"):  # another constant for each channel
            if not neutral and bias in dict(module.named_parameters()) and not name.startswith("bam"):
                nn.init.normal_(module.get_parameter(bias))
    x = input_of(model)
    fused = zoo.fuse_for_inference(model, x[:1])
    assert_same(fused, model, x)
    assert [type(m).__name__ for m in fused.modules() if isinstance(m, Attention | Scale)] == left
    assert norms_in(fused) == [] and fused.fusion.constant


@pytest.mark.parametrize("build", [name for name in BUILDS if name != "simam"])
def test_each_attention_as_a_constant(build: str) -> None:
    """Between a convolution and a sum, with a second taker of what it weighs, and as the last of a network."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32)
            self.gate, self.last = BUILDS[build](32), BUILDS[build](32)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.conv(x))
            return self.last(torch.relu(self.gate(x) + x))

    model = randomised(Net()).eval()
    for module in (model.gate, model.last):
        module.make_constant()
    x = torch.randn(2, 3, 9, 8)
    fused = zoo.fuse_for_inference(model, x[:1])
    assert_same(fused, model, x)
    if build not in ("bam_mul", "scse_max"):  # whose other branch stays, and whose gate asks for the sign of its input
        assert not any(isinstance(m, Attention) for m in fused.modules()) and len(fused.fusion.constant) >= 2


@pytest.mark.parametrize("arrangement", ["channel_spatial", "spatial_channel", "parallel"])
@pytest.mark.parametrize("constant", ["channel", "spatial"])
def test_one_gate_of_cbam_is_constant(arrangement: str, constant: str) -> None:
    cbam = CBAM(8, arrangement=arrangement)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), cbam, nn.Conv2d(8, 4, 3, groups=2))
    model = randomised(model).eval()
    getattr(cbam, constant).make_constant()
    if constant == "channel":
        nn.init.normal_(cbam.channel.fc2.bias)  # pyright: ignore
    x = torch.randn(2, 3, 9, 8)
    fused = zoo.fuse_for_inference(model, x[:1])
    assert_same(fused, model, x)
    gate: Any
    [gate] = [m for m in fused.modules() if isinstance(m, CBAM)]
    assert getattr(gate, constant) is None and not any(isinstance(m, Scale) for m in fused.modules())


def test_a_layer_that_feeds_others_too_keeps_its_norm() -> None:
    """So does one that is watched, and one that is not behind a layer at all."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.other = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
            self.watched, self.twice = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            y = self.conv(x)
            z = torch.relu_(self.norm(y) + y)
            return {"y": self.twice(self.twice(self.watched(self.other(z)))), "z": z}

    model = randomised(Net()).eval()
    x = torch.randn(2, 3, 9, 8)
    fused = zoo.fuse_for_inference(model, x)
    assert fused.fusion.norms == () and set(fused.fusion.norms_left) == {"norm", "other", "twice"}
    torch.testing.assert_close(fused(x), model(x), rtol=0, atol=0)


class Turned(nn.Module):
    """A norm behind a convolution whose output is turned on the way, and is taken elsewhere too if `taken`."""

    def __init__(self, turn: Callable[[Tensor], Tensor], taken: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.turn, self.taken = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), turn, taken

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z = self.norm(self.turn(y))
        return z + y if self.taken else z


TURNED = {
    "places": (Turned(lambda y: y.transpose(2, 3)), 1),
    "channels": (Turned(lambda y: y.transpose(1, 2)), 0),
    "channels by name": (Turned(lambda y: y.transpose(dim0=1, dim1=2)), 0),
    "there and back": (Turned(lambda y: y.transpose(1, 2).transpose(dim0=-2, dim1=-3)), 1),
    "there and back, taken": (Turned(lambda y: y.transpose(1, 2).transpose(1, 2), taken=True), 0),
}
"""With as many rows as channels, so that a norm runs over either; and how many norms fold."""


@pytest.mark.parametrize("name", TURNED)
def test_a_norm_behind_a_transpose_finds_its_channels(name: str) -> None:
    network, folded = TURNED[name]
    model, x = randomised(network).eval(), torch.randn(2, 3, 10, 10)
    fused = zoo.fuse_for_inference(model, x)
    assert len(fused.fusion.norms) == folded
    torch.testing.assert_close(fused(x), model(x))


def test_attached_gates_and_kernels_stay() -> None:
    """A fused CBAM goes through its kernel, whose convolution has a bias then; a gate on a hook is fused as others."""
    model = timm.create_model("resnet18", num_classes=5)
    zoo.attach(model, "cbam", where="blocks")
    model = randomised(model).eval()
    x = torch.randn(2, 3, 64, 64)
    fused = zoo.fuse_for_inference(model, x)
    with zoo.attention.kernels("off"):
        assert_same(fused, model, x)
    assert_same(fused, model, x)
    assert norms_in(fused) == []


def test_idle_gates_are_fixed_and_counted() -> None:
    model = made("cbam_resnet20_cifar", num_classes=10)
    gates = [m for m in model.modules() if isinstance(m, CBAM)]
    for gate in gates[:-1]:  # near a constant, but none
        assert gate.channel is not None and gate.spatial is not None
        nn.init.normal_(gate.channel.fc2.weight, std=1e-4)
        nn.init.constant_(gate.spatial.bn.weight, 1e-4)
    batches = [(torch.randn(8, 3, 32, 32).double(), torch.randint(10, (8,))) for _ in range(2)]
    exact = zoo.fuse_for_inference(model)
    assert not exact.fusion.constant and not exact.fusion.idle and "idle" not in exact.fusion.text()
    fused = zoo.fuse_for_inference(model, idle_gates=batches)
    assert len(fused.fusion.idle) == 2 * len(gates) - 2 and sum(isinstance(m, CBAM) for m in fused.modules()) == 1
    assert fused.fusion.n == 16 and f"of 16 answers change, top-1 {fused.fusion.top1[1]:.2f}" in fused.fusion.text()
    all_fixed = zoo.fuse_for_inference(model, idle_gates=batches, tolerance=100.0)
    answers = [torch.cat([net(x).argmax(1) for x, _ in batches]) for net in (exact, all_fixed)]
    assert all_fixed.fusion.changed == int((answers[0] != answers[1]).sum())
    assert not any(isinstance(m, Attention) for m in all_fixed.modules())
    images, labels = (torch.cat(each) for each in zip(*batches, strict=True))
    loader = DataLoader(TensorDataset(images, labels), 8, shuffle=True)  # answers are compared image by image
    assert zoo.fuse_for_inference(model, idle_gates=loader, tolerance=1e-12).fusion.changed == 0


def test_what_cannot_be_fused_as_asked() -> None:
    model = made("cbam_resnet20_cifar", num_classes=2)
    with pytest.raises(FuseError, match="Sequential does not say what it takes; give an input as the second argument"):
        zoo.fuse_for_inference(nn.Sequential(nn.Linear(2, 2)))
    batch = torch.randn(1, 3, 32, 32).double(), torch.zeros(1, dtype=torch.long)
    for batches, said in ((iter([batch]), "only once"), ([], "no images")):
        with pytest.raises(FuseError, match=said):
            zoo.fuse_for_inference(model, idle_gates=batches)
    with pytest.raises(FuseError, match="tolerance must be above 0, not 0"):
        zoo.fuse_for_inference(model, idle_gates=[batch], tolerance=0)
    assert torch.equal(copy.deepcopy(model)(batch[0]), model(batch[0]))
