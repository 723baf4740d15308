"""Conversion: the networks of other projects and what the zoo makes of their files compute the same.

pytorchcv, torchvision and timm are installed and asked themselves. The official code and luuuyi's are on no registry,
so their networks are written here from the formulas, with the names that their files have.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from pytorchcv.model_provider import get_model
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.attention import Gate
from zoo.cli import main
from zoo.release.staging import stage
from zoo.weights.convert import convert, write
from zoo.weights.foreign_files import ConvertError, WeightFileError
from zoo.weights.form import form_of
from zoo.weights.projects import SOURCES


def randomise(network: nn.Module) -> nn.Module:
    """Norms and gates that are not at their start, so that each of them matters to the logits."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)  # pyright: ignore
            nn.init.uniform_(module.running_var, 0.5, 2)  # pyright: ignore
    return network.eval()


@torch.inference_mode()
def assert_equal(theirs: nn.Module, ours: nn.Module, size: int) -> None:
    """Logits within 1e-5 of their range; they move when a gate does, so the gates are part of what is compared."""
    images = 3 * torch.randn(2, 3, size, size)
    images[0] = 3 * F.interpolate(torch.randn(1, 3, 4, 4), size=size)[0] + 2
    a, b = theirs(images), ours(images)
    scale = a.abs().max()
    assert (a - b).abs().max() < 1e-5 * max(1.0, scale.item())
    assert (a[0] - a[1]).abs().max() > 1e-3 * scale, "the two images must differ, or equality says nothing"
    gates = [module for module in ours.modules() if isinstance(module, Gate)]
    for parameter in (parameter for gate in gates for parameter in gate.parameters()):
        parameter.mul_(1.5)
    assert not gates or (ours(images) - b).abs().max() > 1e-4 * scale


def saved(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path)
    return path


# Naive networks, from the formulas.


class OfficialCBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        mlp = nn.Sequential(
            nn.Flatten(), nn.Linear(channels, channels // 16), nn.ReLU(), nn.Linear(channels // 16, channels)
        )
        self.ChannelGate = nn.ModuleDict({"mlp": mlp})
        spatial = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3, bias=False), "bn": nn.BatchNorm2d(1)})
        self.SpatialGate = nn.ModuleDict({"spatial": spatial})

    def forward(self, x: Tensor) -> Tensor:
        mlp, spatial = self.ChannelGate["mlp"], self.SpatialGate["spatial"]
        x = x * torch.sigmoid(mlp(x.mean((2, 3))) + mlp(x.amax((2, 3))))[:, :, None, None]
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)  # maximum first
        return x * torch.sigmoid(spatial["bn"](spatial["conv"](pooled)))  # pyright: ignore


class OfficialBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 16
        gate_c = nn.Sequential()
        gate_c.add_module("gate_c_fc_0", nn.Linear(channels, hidden))
        gate_c.add_module("gate_c_bn_1", nn.BatchNorm1d(hidden))
        gate_c.add_module("gate_c_relu_1", nn.ReLU())
        gate_c.add_module("gate_c_fc_final", nn.Linear(hidden, channels))
        gate_s = nn.Sequential()
        gate_s.add_module("gate_s_conv_reduce0", nn.Conv2d(channels, hidden, 1))
        gate_s.add_module("gate_s_bn_reduce0", nn.BatchNorm2d(hidden))
        gate_s.add_module("gate_s_relu_reduce0", nn.ReLU())
        for i in range(2):
            gate_s.add_module(f"gate_s_conv_di_{i}", nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4))
            gate_s.add_module(f"gate_s_bn_di_{i}", nn.BatchNorm2d(hidden))
            gate_s.add_module(f"gate_s_relu_di_{i}", nn.ReLU())
        gate_s.add_module("gate_s_conv_final", nn.Conv2d(hidden, 1, 1))
        self.channel_att, self.spatial_att = nn.ModuleDict({"gate_c": gate_c}), nn.ModuleDict({"gate_s": gate_s})

    def forward(self, x: Tensor) -> Tensor:
        channel = self.channel_att["gate_c"](x.mean((2, 3)))[:, :, None, None]
        return x * (1 + torch.sigmoid(channel * self.spatial_att["gate_s"](x)))  # a product, not the paper's sum


class LuuuyiCBAM(nn.Module):
    def __init__(self, channels: int, early: bool) -> None:
        super().__init__()
        fc1, fc2 = (
            nn.Conv2d(channels, channels // 16, 1, bias=False),
            nn.Conv2d(channels // 16, channels, 1, bias=False),
        )
        layers = {"fc1": fc1, "fc2": fc2} if early else {"fc": nn.Sequential(fc1, nn.ReLU(), fc2)}
        self.ca = nn.ModuleDict(layers)
        self.sa = nn.ModuleDict({"conv1": nn.Conv2d(2, 1, 7, padding=3, bias=False)})
        self.both = (lambda z: fc2(F.relu(fc1(z)))) if early else self.ca["fc"]

    def gate(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.both(x.mean((2, 3), True)) + self.both(x.amax((2, 3), True)))
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # mean first
        return x * torch.sigmoid(self.sa["conv1"](pooled))


class Naive(nn.Module):
    """A ResNet as torchvision's, with `gate` before the addition of each block and `after` behind stages 1 to 3."""

    def __init__(self, depth: int, gate: Any = None, after: Any = None, luuuyi: bool | None = None) -> None:
        super().__init__()
        plain = getattr(torchvision.models, f"resnet{depth}")(num_classes=7)
        for name, child in plain.named_children():
            self.add_module(name, child)
        self.luuuyi: dict[nn.Module, LuuuyiCBAM] = {}
        for block in (block for blocks in self.stages() for block in blocks):
            last: Any = block.bn3 if depth >= 50 else block.bn2
            if gate:
                block.cbam = gate(last.num_features)
            if luuuyi is not None:
                both = LuuuyiCBAM(last.num_features, luuuyi)
                block.ca, block.sa = both.ca, both.sa
                self.luuuyi[block] = both
        if after:
            for i, stage_ in enumerate(self.stages()[:3], 1):
                last = stage_[-1]
                self.add_module(f"bam{i}", after((last.bn3 if depth >= 50 else last.bn2).num_features))

    def stages(self) -> list[Any]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def block(self, block: Any, x: Tensor) -> Tensor:
        y = F.relu(block.bn1(block.conv1(x)))
        y = block.bn2(block.conv2(y))
        if hasattr(block, "conv3"):
            y = block.bn3(block.conv3(F.relu(y)))
        if hasattr(block, "cbam"):
            y = block.cbam(y)
        if block in self.luuuyi:
            y = self.luuuyi[block].gate(y)
        return F.relu(y + (block.downsample(x) if block.downsample is not None else x))

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for i, stage_ in enumerate(self.stages(), 1):
            for block in stage_:
                x = self.block(block, x)
            if hasattr(self, f"bam{i}"):
                x = getattr(self, f"bam{i}")(x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "depth", "gates"),
    [
        ("cbam_resnet18", 18, {"gate": OfficialCBAM}),
        ("cbam_resnet50", 50, {"gate": OfficialCBAM}),
        ("bam_mul_resnet18", 18, {"after": OfficialBAM}),
        ("bam_mul_resnet50", 50, {"after": OfficialBAM}),
    ],
)
def test_official(tmp_path: Path, model: str, depth: int, gates: Any) -> None:
    """As the published files are: the checkpoint of a training on several GPUs."""
    theirs = randomise(Naive(depth, **gates))
    state = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    checkpoint = {"epoch": 100, "arch": "resnet", "state_dict": state, "best_prec1": torch.tensor(77.6)}
    torch.save(checkpoint, tmp_path / "checkpoint.pth.tar")
    assert_equal(theirs, convert(tmp_path / "checkpoint.pth.tar", "official", model).network, 96)


@pytest.mark.parametrize(("model", "depth", "early"), [("cbam_resnet18", 18, False), ("cbam_resnet50", 50, True)])
def test_luuuyi(tmp_path: Path, model: str, depth: int, early: bool) -> None:
    theirs = randomise(Naive(depth, luuuyi=early))
    converted = convert(saved(theirs, tmp_path / "weights.pth"), "luuuyi", model)
    assert converted.attn_kwargs == {"bias": False, "norm": False, "neutral": False}
    assert_equal(theirs, converted.network, 96)


@pytest.mark.parametrize(
    ("theirs", "model"),
    [
        ("cbam_resnet18", "cbam_resnet18"),
        ("cbam_resnet50", "cbam_resnet50"),
        ("bam_resnet18", "bam_mul_resnet18"),
        ("bam_resnet50", "bam_mul_resnet50"),
        ("seresnet18", "se_resnet18"),
        ("seresnet50b", "se_resnet50"),
    ],
)
def test_pytorchcv(tmp_path: Path, theirs: str, model: str) -> None:
    network = randomise(get_model(theirs, num_classes=7))  # pyright: ignore
    file = saved(network, tmp_path / f"{theirs}-2017-0123abcd.pth")
    assert_equal(network, convert(file, "pytorchcv", model).network, 224)


@pytest.mark.parametrize("model", ["resnet18", "cbam_resnet18", "bam_resnet18", "se_resnet18"])
def test_torchvision_is_a_warm_start(tmp_path: Path, model: str) -> None:
    theirs = randomise(torchvision.models.resnet18(num_classes=7))
    ours = convert(saved(theirs, tmp_path / "resnet18.pth"), "torchvision", model).network
    assert "state_dict" not in ours.pretrained_cfg, "a copy of the weights would stay in memory"
    with torch.inference_mode():
        images = torch.randn(2, 3, 64, 64)
        a, b = theirs(images), ours(images)
    assert torch.equal(a, b)


def test_a_plain_network_does_not_become_one_with_simam(tmp_path: Path) -> None:
    file = saved(torchvision.models.resnet18(num_classes=7), tmp_path / "resnet18.pth")
    with pytest.raises(ConvertError, match="gates of simam_resnet18 have no form that leaves it as it is"):
        convert(file, "torchvision", "simam_resnet18")


@pytest.mark.parametrize(
    ("theirs", "model", "options"),
    [
        ("seresnet50", "se_resnet50", {}),
        ("resnet18", "se_resnet18", {}),
        ("resnet18", "cbam_resnet18", {"block_args": {"attn_layer": "cbam"}}),
    ],
)
def test_timm(tmp_path: Path, theirs: str, model: str, options: Any) -> None:
    network = randomise(timm.create_model(theirs, num_classes=7, **options))
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    ours = convert(tmp_path / "model.safetensors", "timm", model).network
    if options or "se" in theirs:
        assert_equal(network, ours, 96)
    else:
        images = torch.randn(2, 3, 64, 64)
        assert torch.equal(network(images), ours(images))


# What is refused.


def refused(path: Path, source: str, model: str, **options: str) -> str:
    with pytest.raises(WeightFileError) as caught:
        convert(path, source, model, **options)
    assert len(str(caught.value)) < 700 and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_model_cannot_compute(tmp_path: Path) -> None:
    bam = saved(Naive(18, after=OfficialBAM), tmp_path / "bam.pth")
    assert "name --model bam_mul_resnet18" in refused(bam, "official", "bam_resnet18")
    assert "is no cbam_resnet18 of official" in refused(bam, "official", "cbam_resnet18")
    assert "is no bam_mul_resnet34 of official" in refused(bam, "official", "bam_mul_resnet34")
    se = get_model("seresnet50", num_classes=7)
    named = saved(se, tmp_path / "seresnet50-2137-a.pth")
    assert "only seresnet50b can be converted" in refused(named, "pytorchcv", "se_resnet50")
    unnamed = saved(se, tmp_path / "weights.pth")
    assert "add --network seresnet50b" in refused(unnamed, "pytorchcv", "se_resnet50")
    assert "only seresnet50b" in refused(unnamed, "pytorchcv", "se_resnet50", network="seresnet50")
    assert convert(unnamed, "pytorchcv", "se_resnet50", network="seresnet50b").name == "se_resnet50"
    plain = saved(get_model("resnet50", num_classes=7), tmp_path / "resnet50-2159-a.pth")
    assert "only resnet50b can be converted" in refused(plain, "pytorchcv", "resnet50")
    assert "holds no attention" in refused(plain, "pytorchcv", "cbam_resnet50")
    legacy = saved(timm.create_model("legacy_seresnet18"), tmp_path / "legacy.pth")
    assert "legacy_seresnet18" in refused(legacy, "timm", "se_resnet18")
    rounded = saved(timm.create_model("seresnet18"), tmp_path / "seresnet18.pth")
    assert "use timm's own name: seresnet18" in refused(rounded, "timm", "se_resnet18")
    luuuyi = saved(Naive(18, luuuyi=False), tmp_path / "luuuyi.pth")
    assert "name --model cbam_resnet18" in refused(luuuyi, "luuuyi", "se_resnet18")
    assert "is --from right?" in refused(named, "official", "se_resnet50")
    assert "choices are official" in refused(named, "nobody", "se_resnet50")
    assert "did you mean cbam_resnet50" in refused(named, "official", "cbam_resnet500")


# What is written.


def others(source: str, model: str) -> nn.Module:
    """The network of `source` that converts to the zoo's `model`."""
    match source, model.rpartition("_")[0]:
        case "official", attention:
            return Naive(18, gate=OfficialCBAM) if attention == "cbam" else Naive(18, after=OfficialBAM)
        case "luuuyi", _:
            return Naive(18, luuuyi=False)
        case "pytorchcv", _:
            return get_model({"se_resnet18": "seresnet18"}.get(model, model.replace("bam_mul", "bam")), num_classes=7)
        case "timm", "se":
            return timm.create_model("seresnet50", num_classes=7)
        case "timm", "cbam":
            return timm.create_model("resnet18", num_classes=7, block_args={"attn_layer": "cbam"})
        case _:
            return torchvision.models.resnet18(num_classes=7)


GATED = [
    ("official", "cbam_resnet18"),
    ("official", "bam_mul_resnet18"),
    ("luuuyi", "cbam_resnet18"),
    ("pytorchcv", "cbam_resnet18"),
    ("pytorchcv", "bam_mul_resnet18"),
    ("pytorchcv", "se_resnet18"),
    ("timm", "se_resnet50"),
    ("timm", "cbam_resnet18"),
]
PLAIN = [("torchvision", "se_resnet18"), ("torchvision", "bam_resnet18"), ("torchvision", "resnet18")]


@pytest.mark.parametrize(("source", "model"), GATED + PLAIN)
def test_what_is_written_says_its_form(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, source: str, model: str
) -> None:
    """Gates of others have the published form, gates made here the model's own; each file and folder says so."""
    monkeypatch.chdir(tmp_path)
    theirs = randomise(others(source, model))
    saved(theirs, Path("weights.pth"))
    size = 224 if source == "pytorchcv" else 64  # its networks take no other
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        expected = theirs(images)
    neutral = None if model == "resnet18" else (source, model) in PLAIN
    for out in ("out.safetensors", "folder"):
        assert main(["convert", "weights.pth", "--from", source, "--model", model, "--out", out]) == 0
        line = re.findall(r"model = (.*)", capfd.readouterr().out)[0]
        assert ("neutral" in line) == (neutral is not None and out.endswith(".safetensors"))
        ours = eval(line, {"timm": timm}).eval()
        with torch.inference_mode():
            assert (ours(images) - expected).abs().max() < 1e-5 * max(1.0, expected.abs().max().item())
        assert form_of(out) is neutral
        gates = [ours.get_submodule(site.gate) for site in getattr(ours, "gate_sites", ())]
        assert {gate.neutral for gate in gates} == {neutral} - {None}


def test_a_file_that_says_its_form_keeps_it(tmp_path: Path) -> None:
    """What the zoo wrote has the names of timm's weights, so it may be converted again."""
    theirs = randomise(torchvision.models.resnet18(num_classes=7))
    warm, again = tmp_path / "warm.safetensors", tmp_path / "again.safetensors"
    write(convert(saved(theirs, tmp_path / "resnet18.pth"), "torchvision", "cbam_resnet18"), warm)
    converted = convert(warm, "timm", "cbam_resnet18")
    write(converted, again)
    assert converted.attn_kwargs["neutral"] is True and form_of(again) is True
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(converted.network(images), theirs(images))


def test_the_form_of_a_file_and_of_a_folder(tmp_path: Path) -> None:
    weights = {"fc.bias": torch.ones(1)}
    config, own, other = tmp_path / "config.json", tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    save_file(weights, own, {"format": "pt"})
    save_file(weights, other, {"format": "pt", "neutral": "false"})
    (broken := tmp_path / "broken.safetensors").write_bytes(b"x")
    files = (own, tmp_path, other, broken, tmp_path / "missing.pth")
    assert [form_of(path) for path in files] == [None, None, False, None, None]
    for text in ("{", "[]", "{}", '{"model_args": {"attn_kwargs": {"neutral": "yes"}}}'):
        config.write_text(text)
        assert form_of(own) is None and form_of(tmp_path) is None, text
    config.write_text('{"model_args": {"attn_kwargs": {"neutral": true}}}')
    assert [form_of(path) for path in files] == [True, True, False, None, None], "it speaks of the folder's own file"


def test_both_forms_of_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    theirs = randomise(Naive(18, luuuyi=False))
    saved(theirs, Path("luuuyi.pth"))
    images = torch.randn(1, 3, 64, 64)
    expected = theirs(images)
    for out in ("out.safetensors", "folder"):
        command = ["convert", "luuuyi.pth", "--from", "luuuyi", "--model", "cbam_resnet18", "--out", out]
        assert main(command) == 0
        printed = capfd.readouterr()
        assert "has no licence" in printed.err
        line = re.findall(r"model = (.*)", printed.out)[0]
        model = eval(line, {"timm": timm})
        torch.testing.assert_close(model.eval()(images), expected, rtol=1e-5, atol=1e-5)
    assert main(command) == 2 and "is there already" in capfd.readouterr().err
    with safe_open("out.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt" and "luuuyi/CBAM.PyTorch" in file.metadata()["origin"]


def test_a_converted_folder_is_ready_to_publish(tmp_path: Path) -> None:
    theirs = randomise(Naive(18, OfficialCBAM))
    file = saved(theirs, tmp_path / "RESNET18_CBAM.pth")
    write(convert(file, "official", "cbam_resnet18"), tmp_path / "model", "official_in1k")
    staged = stage(tmp_path / "model", tmp_path / "staged", "me/cbam_resnet18.official_in1k")
    assert staged.name == "cbam_resnet18.official_in1k"
    cfg = staged.config["pretrained_cfg"]
    assert (cfg["license"], cfg["interpolation"], cfg["crop_pct"]) == ("mit", "bilinear", 0.875)
    card = (staged.folder / "README.md").read_text()
    assert "Converted from RESNET18_CBAM.pth of github.com/Jongchan/attention-module" in card
    assert "Not measured by this project." in card and "a1_in1k" not in card + str(staged.config)
    assert set(SOURCES) == {"official", "pytorchcv", "luuuyi", "torchvision", "timm"}
