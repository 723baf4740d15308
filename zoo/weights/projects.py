"""Other projects whose weights the zoo converts: how each names them, and what its networks compute otherwise.

    official      Jongchan/attention-module, CBAM and BAM ResNets (MIT)
    pytorchcv     osmr/pytorchcv: cbam_resnet*, bam_resnet*, seresnet18/34 and seresnet*b (MIT)
    luuuyi        luuuyi/CBAM.PyTorch, CBAM ResNets (no licence)
    torchvision   its plain ResNets, as a warm start (BSD-3-Clause)
    timm          its SE and plain ResNets, and those with `attn_layer="cbam"` (Apache-2.0)

BAM multiplies its two branches in `official` and in `pytorchcv`, so their BAM networks are the zoo's `bam_mul_*`. Their
CBAM reads [max, mean] in its spatial gate and the zoo's reads [mean, max], so that convolution's input channels change
places.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Source:
    """A project: a row of SOURCES."""

    origin: str
    """Address of the project; converted weights name it as their provenance."""
    license: str
    """As the Hub calls it; empty if the project has none."""
    rules: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    """Regular expression -> replacement in a name; all that match are applied, in this order."""
    changes: Mapping[str, Change] = field(default_factory=dict)
    """Regular expression of a converted name -> what happens to that weight."""
    attn_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Switches of the attention that make the zoo's model compute the same."""
    plain: bool = False
    """Its weights without gates may start a model with gates (a warm start)."""
    cfg: Mapping[str, Any] = field(default_factory=dict)
    """Fields of timm's pretrained_cfg in which its ImageNet weights differ from the model's default."""


def _swap(weight: Tensor) -> Tensor:
    """Exchange the two input channels of CBAM's spatial convolution, (1, 2, k, k)."""
    return weight.flip(1)


def _flat(weight: Tensor) -> Tensor:
    """A 1x1 convolution (out, in, 1, 1) as a linear layer (out, in)."""
    return weight.flatten(1)


def _stage_before(match: re.Match[str]) -> str:
    """pytorchcv has BAM in front of a stage where the zoo has it behind the one before."""
    return f"layer{int(match[1]) - 1}.bam."


def _unit_before(match: re.Match[str]) -> str:
    """pytorchcv counts units from 1."""
    return f".{int(match[1]) - 1}."


TORCHVISION_EVAL = {"interpolation": "bilinear", "crop_pct": 0.875}
"""How these projects resize and crop for evaluation, as torchvision does."""

SOURCES = {
    "official": Source(
        "https://github.com/Jongchan/attention-module",
        "mit",
        (
            (r"^module\.", ""),
            (r"\.cbam\.ChannelGate\.mlp\.1\.", ".se.channel.fc1."),
            (r"\.cbam\.ChannelGate\.mlp\.3\.", ".se.channel.fc2."),
            (r"\.cbam\.SpatialGate\.spatial\.", ".se.spatial."),
            (r"^bam(\d)\.", r"layer\1.bam."),
            (r"\.channel_att\.gate_c\.gate_c_fc_0\.", ".channel.fc1."),
            (r"\.channel_att\.gate_c\.gate_c_bn_1\.", ".channel.bn."),
            (r"\.channel_att\.gate_c\.gate_c_fc_final\.", ".channel.fc2."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_reduce0\.", ".spatial.trunk.reduce."),
            (r"\.spatial_att\.gate_s\.gate_s_bn_reduce0\.", ".spatial.trunk.reduce_bn."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_di_0\.", ".spatial.trunk.conv1."),
            (r"\.spatial_att\.gate_s\.gate_s_bn_di_0\.", ".spatial.trunk.conv1_bn."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_di_1\.", ".spatial.trunk.conv2."),
            (r"\.spatial_att\.gate_s\.gate_s_bn_di_1\.", ".spatial.trunk.conv2_bn."),
            (r"\.spatial_att\.gate_s\.gate_s_conv_final\.", ".spatial.project."),
        ),
        {r".*\.se\.spatial\.conv\.weight": _swap},
        cfg=TORCHVISION_EVAL,
    ),
    "pytorchcv": Source(
        "https://github.com/osmr/pytorchcv",
        "mit",
        (
            (r"^features\.init_block\.conv\.conv\.", "conv1."),
            (r"^features\.init_block\.conv\.bn\.", "bn1."),
            (r"^features\.stage(\d)\.", r"layer\1."),
            (r"\.res_unit\.", "."),
            (r"\.body\.conv(\d)\.conv\.", r".conv\1."),
            (r"\.body\.conv(\d)\.bn\.", r".bn\1."),
            (r"\.identity_conv\.conv\.", ".downsample.0."),
            (r"\.identity_conv\.bn\.", ".downsample.1."),
            (r"\.cbam\.ch_gate\.mlp\.", ".se.channel."),
            (r"\.cbam\.sp_gate\.conv\.", ".se.spatial."),
            (r"\.se\.conv(\d)\.", r".se.fc\1."),
            (r"\.ch_att\.init_fc\.fc\.", ".channel.fc1."),
            (r"\.ch_att\.init_fc\.bn\.", ".channel.bn."),
            (r"\.ch_att\.final_fc\.", ".channel.fc2."),
            (r"\.sp_att\.init_conv\.conv\.", ".spatial.trunk.reduce."),
            (r"\.sp_att\.init_conv\.bn\.", ".spatial.trunk.reduce_bn."),
            (r"\.sp_att\.dil_convs\.conv(\d)\.conv\.", r".spatial.trunk.conv\1."),
            (r"\.sp_att\.dil_convs\.conv(\d)\.bn\.", r".spatial.trunk.conv\1_bn."),
            (r"\.sp_att\.final_conv\.", ".spatial.project."),
            (r"^layer(\d)\.unit1\.bam\.", _stage_before),
            (r"\.unit(\d+)\.", _unit_before),
            (r"^output\.", "fc."),
        ),
        {r".*\.se\.spatial\.conv\.weight": _swap, r".*\.se\.fc\d\.weight": _flat},
        cfg=TORCHVISION_EVAL,
    ),
    "luuuyi": Source(
        "https://github.com/luuuyi/CBAM.PyTorch",
        "",
        (
            (r"^module\.", ""),
            (r"\.ca\.fc1\.", ".se.channel.fc1."),  # the project's first years
            (r"\.ca\.fc2\.", ".se.channel.fc2."),
            (r"\.ca\.fc\.0\.", ".se.channel.fc1."),
            (r"\.ca\.fc\.2\.", ".se.channel.fc2."),
            (r"\.sa\.conv1\.", ".se.spatial.conv."),
        ),
        {r".*\.se\.channel\.fc\d\.weight": _flat},
        {"bias": False, "norm": False},
        cfg=TORCHVISION_EVAL,
    ),
    "torchvision": Source("https://github.com/pytorch/vision", "bsd-3-clause", (), plain=True, cfg=TORCHVISION_EVAL),
    "timm": Source(
        "https://github.com/huggingface/pytorch-image-models",
        "apache-2.0",
        (
            (r"\.se\.spatial\.conv\.conv\.", ".se.spatial.conv."),
            (r"\.se\.spatial\.conv\.bn\.", ".se.spatial.bn."),
        ),
        {r".*\.se\.(channel\.)?fc\d\.weight": _flat},
        plain=True,
    ),
}
