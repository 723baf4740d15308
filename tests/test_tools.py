"""A sample of scripts/tools_matrix.py: tools of timm and torch that work on plain networks work on ours."""

import copy
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, update_bn

import zoo
from zoo.attention import HardAttention
from zoo.attention.norms import GateBatchNorm1d, GateBatchNorm2d
from zoo.models.attentions import ATTENTIONS
from zoo.models.placement import Network

ROOT = Path(zoo.__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

SHORT: Mapping[str, Any] = {"layers": (1, 1, 1), "channels": (16, 24, 32)}
SAMPLE = (
    # Each failed on the gates or the places of these attentions.
    "timm: freeze, unfreeze",
    "timm: reparameterize_model",
    "timm: convert_splitbn_model",
    "torch: jit.trace",
    "torch: jit.trace, training",
    "torch: quantize_dynamic",
    "torch: prepare_fx, convert_fx",
    "torch: AveragedModel, update_bn",
    "torch: channels_last",
)
FAILED = ("cbam", "triplet")
"""Attentions that quantisation destroyed."""


@pytest.mark.parametrize(
    "attention", ["cbam", *(pytest.param(name, marks=pytest.mark.every) for name in ("se", "bam"))]
)
def test_tools_on_networks(attention: str) -> None:
    from tools_matrix import TOOLS, Make, fault

    make = Make(f"{attention}_resnet20_cifar", **SHORT)
    assert {name: wrong for name in SAMPLE if (wrong := fault(TOOLS[name], make))} == {}


def test_freezing_and_quantising_reach_the_gates_of_mobilenetv1() -> None:
    from tools_matrix import TOOLS, Make, fault

    make = Make("cbam_mobilenetv1_070")
    names = ("timm: freeze, unfreeze", "torch: quantize_dynamic")
    assert {name: wrong for name in names if (wrong := fault(TOOLS[name], make))} == {}


@pytest.mark.filterwarnings("ignore")  # of torch.ao, which is old
@pytest.mark.parametrize(
    "name", [name if name in FAILED else pytest.param(name, marks=pytest.mark.every) for name in ATTENTIONS]
)
def test_quantising_leaves_a_gate_what_it_was(name: str) -> None:
    """torch.fx's quantisation cut the logits of CBAM and triplet attention to the range of their sigmoids, 0 to 1."""
    from tools_of_torch import get_default_qconfig_mapping, quantize_fx

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), ATTENTIONS[name].gate(16), nn.Conv2d(16, 16, 1)).eval()
    x = torch.randn(2, 16, 16, 16)
    prepared = quantize_fx.prepare_fx(copy.deepcopy(network), get_default_qconfig_mapping("x86"), (x,))
    prepared(x)
    away = quantize_fx.convert_fx(prepared)(x) - network(x)
    assert away.norm() < 0.1 * network(x).norm()


def test_the_matrix_says_which_tool_fails_where() -> None:
    """A tool that fails on the plain network, too, is told from one that fails with gates alone."""
    from tools_matrix import Make, Variant, measure

    def never(make: Make, x: Tensor) -> None:
        raise RuntimeError("no\nsuch thing")

    def on_plain_ones(make: Make, x: Tensor) -> None:
        if "se_" in make.name:
            raise TypeError("gates")

    variant = Variant("se_resnet20_cifar", "resnet20_cifar", "se", "")
    rows = measure("CIFAR", variant, {"never": "RuntimeError: no such thing"}, {"never": never, "plain": on_plain_ones})
    found = [(row["tool"], row["result"], row["fault"]) for row in rows]
    assert found == [("never", "as plain", "RuntimeError: no such thing"), ("plain", "fails", "TypeError: gates")]


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("backbone", ["mobilenetv3_small_100", "mobilenetv4_conv_small"])
def test_mobilenets_have_an_output_stride(backbone: str, output_stride: int) -> None:
    """Segmentation wants it of the features; timm gives it to a class of its own."""
    weights = timm.create_model(backbone).state_dict()
    options: dict[str, Any] = {"features_only": True, "output_stride": output_stride}
    plain = timm.create_model(backbone, **options).eval()
    assert not plain.load_state_dict(weights, strict=False).missing_keys
    overlay: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": {"state_dict": weights}}
    gated: Network = timm.create_model(f"cbam_{backbone}", **options, **overlay).eval()
    assert gated.feature_info.reduction() == plain.feature_info.reduction()  # pyright: ignore
    x = torch.randn(1, 3, 96, 80)
    for found, expected in zip(gated(x), plain(x), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("momentum", [None, 0.1])
def test_gate_norms_count_batches_and_average_them_as_torchs_do(momentum: float | None) -> None:
    for ours, theirs, shape in (
        (GateBatchNorm2d(3, momentum=momentum), nn.BatchNorm2d(3, momentum=momentum), (4, 3, 5, 5)),
        (GateBatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3, momentum=momentum), (4, 3)),
    ):
        for _ in range(3):
            x = torch.randn(shape)
            assert torch.equal(ours(x), theirs(x))
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key
        ours(torch.randn(1, *shape[1:2], *(1 for _ in shape[2:])))
        assert ours.num_batches_tracked == 3, "one value a channel has no statistics to average"


def test_update_bn_reaches_the_gates() -> None:
    model = AveragedModel(timm.create_model("bam_resnet20_cifar", **SHORT))
    before = {key: value.clone() for key, value in model.state_dict().items() if "running_mean" in key}
    update_bn([torch.randn(4, 3, 32, 32) for _ in range(2)], model)
    after = model.state_dict()
    assert len(before) > 12 and not any(torch.equal(after[key], value) for key, value in before.items())


def test_hard_attention_keeps_the_layout() -> None:
    hard, x = HardAttention(8).eval(), torch.randn(2, 8, 9, 7)
    last = x.contiguous(memory_format=torch.channels_last)
    crops = hard.crop(last, hard.locate(last), 6, 5)
    assert crops.is_contiguous(memory_format=torch.channels_last) and not crops.is_contiguous()
    torch.testing.assert_close(crops, hard.crop(x, hard.locate(x), 6, 5))
    model: Network = timm.create_model("hacnn").eval().to(memory_format=torch.channels_last)  # pyright: ignore
    image = torch.randn(1, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    assert model.forward_features(image).is_contiguous(memory_format=torch.channels_last)
