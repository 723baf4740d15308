"""The table of models: one row a model, one loop that registers the rows with timm.

    timm.create_model("cbam_resnet50", pretrained=True, attn_kwargs=dict(reduction=8))

A variant's name is `<attention>_<backbone>`; a name without attention is a plain backbone that timm lacks. A tag
`.warm_<tag>` means published weights of the plain backbone, warm-started exactly (zoo/models/warm_start.py); any other tag is a
row of the weights manifest (zoo/weights/manifest.py).
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import timm
from timm.models import PretrainedCfg, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.efficientnet import EfficientNet, decode_arch_def
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn

from zoo.attention import (
    BAM,
    CBAM,
    ECA,
    CoordAttention,
    ScSE,
    SimAM,
    SoftAttention,
    SpatialGate,
    SqueezeExcite,
    TripletAttention,
)
from zoo.models import placement
from zoo.models.placement import MakeGate, Network, Site
from zoo.models.warm_start import fold_gates
from zoo.networks.cifar import CifarResNet, cifar_mobilenet_v2
from zoo.networks.hacnn import HACNN
from zoo.networks.volume_resnet import r2plus1d_18, r3d_18, resnet18_volume
from zoo.weights.hub import fetch
from zoo.weights.manifest import FILE_NAME, Weights, read_manifest

__all__: list[str] = []  # timm's register_model fills it

Place = Callable[[Network, MakeGate], list[Site]]


def mobilenet_v1(width: float, **kwargs: Any) -> EfficientNet:
    """MobileNetV1 (Howard et al. 2017, Table 1), all channels times `width`, rounded down (0.7: 2.30 M parameters)."""
    stages = ["dsa_r1_k3_s1_c64", "dsa_r2_k3_s2_c128", "dsa_r2_k3_s2_c256", "dsa_r6_k3_s2_c512", "dsa_r2_k3_s2_c1024"]
    return EfficientNet(
        **{
            "act_layer": nn.ReLU6,
            "num_features": 0,
            "round_chs_fn": lambda channels: int(channels * width),
            **kwargs,
            "block_args": decode_arch_def([[stage] for stage in stages]),
        }
    )


@dataclass(frozen=True)
class Attention:
    """A gate that a name's prefix stands for."""

    gate: type[nn.Module]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the gate that make this row what it is, not open to `attn_kwargs`."""
    places: tuple[str, ...] = ("block",)
    """Where it may go, keys of `Backbone.places`; the first is the default, `attn_kwargs["place"]` another."""
    in_volumes: Mapping[str, Any] = field(default_factory=dict)
    """Other defaults of the gate in 3-D."""
    exact: bool = True
    """Whether a warm start is possible: the gate can be made constant."""

    @property
    def paper(self) -> str:
        """Authors, year and arXiv number, from the head of the gate's file."""
        head = (sys.modules[self.gate.__module__].__doc__ or "").partition("\n")[0]
        return re.sub(r",? (equations?|sections?) .*", "", head)

    def options(self, dims: int) -> dict[str, Any]:
        """The names that `attn_kwargs` may hold, with their defaults, for maps (2) or volumes (3)."""
        parameters = inspect.signature(self.gate).parameters.values()
        closed = {"channels", "act_layer", "device", "dtype", "dims", *self.fixed}
        if dims == 2:
            closed.add("keep_depth")
        options = {p.name: p.default for p in parameters if p.name not in closed}
        if dims == 3:
            options |= self.in_volumes
        return options | {"place": self.places[0]} if len(self.places) > 1 else options


ATTENTIONS = {
    "se": Attention(SqueezeExcite),
    "cbam": Attention(CBAM, in_volumes={"reduction": 8, "kernel_size": 3}),
    "bam": Attention(BAM, places=("before", "after")),
    "bam_mul": Attention(BAM, {"fuse": "mul"}, places=("before", "after")),
    "spatial": Attention(SpatialGate),
    "ha": Attention(SoftAttention),
    "eca": Attention(ECA),
    "coord": Attention(CoordAttention),
    "scse": Attention(ScSE),
    "simam": Attention(SimAM, exact=False),
    "triplet": Attention(TripletAttention),
}


@dataclass(frozen=True)
class Backbone:
    """A plain network and where attention goes in it."""

    build: Callable[..., Network]
    places: Mapping[str, Place]
    """Place of an attention (`Attention.places`) -> placement; its name, if it has one of its own here, goes first."""
    tag: str = ""
    """Published weights of this network that a warm start reads; empty where there are none."""
    cfg: Mapping[str, Any] = field(default_factory=dict)
    """pretrained_cfg, with the source of the weights `tag`."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Settings of timm's `features_only`."""
    dims: int = 2
    """Spatial axes of its input: 2, or 3 for volumes."""


def _timm(name: str, tag: str, places: Mapping[str, Place], **features: Any) -> Backbone:
    """A backbone that timm has under `name`, with its weights `tag`."""
    cfg = timm.models.get_pretrained_cfg(f"{name}.{tag}")
    assert cfg is not None, f"timm has no weights {name}.{tag}"
    source = {"hf_hub_id": f"timm/{name}.{tag}", "url": None}
    return Backbone(timm.model_entrypoint(name), places, tag, {**cfg.to_dict(), **source}, features)


AROUND_STRIDES: dict[str, Place] = {"before": placement.before_strides, "after": placement.after_strides}
IN_RESNET: dict[str, Place] = {"block": placement.at_branch_ends, **AROUND_STRIDES}
IN_VOLUME_RESNET: dict[str, Place] = {"block": placement.at_volume_branch_ends, **AROUND_STRIDES}
IN_MOBILENET_V1: dict[str, Place] = {
    "block": placement.after_pointwise,
    "cbam": placement.after_depthwise_and_pointwise,
    **AROUND_STRIDES,
}
IN_MOBILENET_V2: dict[str, Place] = {"block": placement.in_se_slots, **AROUND_STRIDES}
IN_MOBILENET_V3: dict[str, Place] = {"block": placement.behind_se, **AROUND_STRIDES}

FLAT = {"flatten_sequential": True}  # timm's stages of a MobileNet lie two levels deep
IMAGENET_RESNET = {"first_conv": "conv1", "classifier": "fc", "pool_size": (7, 7), "interpolation": "bilinear"}
IMAGENET_MOBILENET = {"first_conv": "conv_stem", "classifier": "classifier", "pool_size": (7, 7)}
# Mean and standard deviation of CIFAR-100's training images, rounded.
CIFAR = {
    "input_size": (3, 32, 32),
    "num_classes": 100,
    "crop_pct": 1.0,
    "mean": (0.507, 0.487, 0.441),
    "std": (0.267, 0.256, 0.276),
}
CIFAR_THREE_STAGES = {**CIFAR, "first_conv": "conv1", "classifier": "fc", "pool_size": (8, 8)}
CIFAR_FOUR_STAGES = {**CIFAR, "first_conv": "conv1", "classifier": "fc", "pool_size": (4, 4)}
CIFAR_MOBILENET = {**CIFAR, "first_conv": "conv_stem", "classifier": "classifier", "pool_size": (4, 4)}
FOUR_FEATURES = {"out_indices": (0, 1, 2, 3)}
GETTER = {"feature_cls": "getter"}  # features by the network's own forward_intermediates
KINETICS = {
    "input_size": (3, 112, 112),
    "num_classes": 400,
    "crop_pct": 112 / 128,
    "interpolation": "bilinear",
    "mean": (0.43216, 0.394666, 0.37645),
    "std": (0.22803, 0.22145, 0.216989),
    "classifier": "fc",
    "pool_size": (7, 7),
    "license": "bsd-3-clause",
}
VOXELS = {
    "input_size": (1, 32, 32),
    "num_classes": 10,
    "crop_pct": 1.0,
    "mean": (0.0,),
    "std": (1.0,),
    "classifier": "fc",
    "pool_size": (2, 2),
}
MARKET_1501 = {
    "input_size": (3, 160, 64),
    "num_classes": 751,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "crop_mode": "squash",  # people are upright, and their boxes of any shape: as torchreid resizes them
    "first_conv": "stem.conv",
    "classifier": ("classifier_global", "classifier_local"),
    "pool_size": (10, 4),
}

resnet_cifar_small = partial(CifarResNet, BasicBlock, channels=(16, 32, 64))
resnet_cifar = partial(CifarResNet, channels=(64, 128, 256, 512))
resnext29 = partial(CifarResNet, Bottleneck, (3, 3, 3), (64, 128, 256), cardinality=8, base_width=64)
wide_resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))  # pyright: ignore[reportArgumentType]  timm's hint

BACKBONES = {
    "resnet18": _timm("resnet18", "a1_in1k", IN_RESNET),
    "resnet34": _timm("resnet34", "a1_in1k", IN_RESNET),
    "resnet50": _timm("resnet50", "a1_in1k", IN_RESNET),
    "resnet101": _timm("resnet101", "a1h_in1k", IN_RESNET),
    "resnet152": _timm("resnet152", "a1h_in1k", IN_RESNET),
    "resnext50_32x4d": _timm("resnext50_32x4d", "a1h_in1k", IN_RESNET),
    "resnext101_32x4d": _timm("resnext101_32x4d", "gluon_in1k", IN_RESNET),
    "wide_resnet18_1p5": Backbone(partial(wide_resnet18, channels=(96, 192, 384, 768)), IN_RESNET, cfg=IMAGENET_RESNET),
    "wide_resnet18_2": Backbone(partial(wide_resnet18, channels=(128, 256, 512, 1024)), IN_RESNET, cfg=IMAGENET_RESNET),
    "mobilenetv1_070": Backbone(partial(mobilenet_v1, 0.7), IN_MOBILENET_V1, cfg=IMAGENET_MOBILENET, features=FLAT),
    "mobilenetv1_100": _timm("mobilenetv1_100", "ra4_e3600_r224_in1k", IN_MOBILENET_V1, **FLAT),
    "mobilenetv2_050": _timm("mobilenetv2_050", "lamb_in1k", IN_MOBILENET_V2, **FLAT),
    "mobilenetv2_100": _timm("mobilenetv2_100", "ra_in1k", IN_MOBILENET_V2, **FLAT),
    "mobilenetv2_140": _timm("mobilenetv2_140", "ra_in1k", IN_MOBILENET_V2, **FLAT),
    "mobilenetv3_small_100": _timm("mobilenetv3_small_100", "lamb_in1k", IN_MOBILENET_V3, **FLAT),
    "mobilenetv3_large_100": _timm("mobilenetv3_large_100", "ra_in1k", IN_MOBILENET_V3, **FLAT),
    "resnet20_cifar": Backbone(
        partial(resnet_cifar_small, layers=(3, 3, 3)), IN_RESNET, cfg=CIFAR_THREE_STAGES, features=FOUR_FEATURES
    ),
    "resnet56_cifar": Backbone(
        partial(resnet_cifar_small, layers=(9, 9, 9)), IN_RESNET, cfg=CIFAR_THREE_STAGES, features=FOUR_FEATURES
    ),
    "resnet110_cifar": Backbone(
        partial(resnet_cifar_small, layers=(18, 18, 18)), IN_RESNET, cfg=CIFAR_THREE_STAGES, features=FOUR_FEATURES
    ),
    "resnet18_cifar": Backbone(partial(resnet_cifar, BasicBlock, (2, 2, 2, 2)), IN_RESNET, cfg=CIFAR_FOUR_STAGES),
    "resnet50_cifar": Backbone(partial(resnet_cifar, Bottleneck, (3, 4, 6, 3)), IN_RESNET, cfg=CIFAR_FOUR_STAGES),
    "resnext29_8x64d_cifar": Backbone(resnext29, IN_RESNET, cfg=CIFAR_THREE_STAGES, features=FOUR_FEATURES),
    "mobilenetv2_100_cifar": Backbone(
        cifar_mobilenet_v2, IN_MOBILENET_V2, cfg=CIFAR_MOBILENET, features={**FLAT, **FOUR_FEATURES}
    ),
    "hacnn": Backbone(HACNN, {}, cfg=MARKET_1501, features={**GETTER, **FOUR_FEATURES}),
    "r3d_18": Backbone(
        r3d_18,
        IN_VOLUME_RESNET,
        tag="tv_kinetics400",
        cfg={**KINETICS, "url": "https://download.pytorch.org/models/r3d_18-b3b3357e.pth"},
        features=GETTER,
        dims=3,
    ),
    "r2plus1d_18": Backbone(
        r2plus1d_18,
        IN_VOLUME_RESNET,
        tag="tv_kinetics400",
        cfg={**KINETICS, "url": "https://download.pytorch.org/models/r2plus1d_18-91a641e6.pth"},
        features=GETTER,
        dims=3,
    ),
    "resnet18_volume": Backbone(resnet18_volume, IN_VOLUME_RESNET, cfg=VOXELS, features=GETTER, dims=3),
}


@dataclass(frozen=True)
class Variant:
    """A row of the table: a model that users create by name."""

    name: str
    backbone: str
    """Key of BACKBONES."""
    attention: str | None
    """Key of ATTENTIONS; None for a plain backbone."""
    doc: str
    """Docstring of timm's entry point."""


# fmt: off
VARIANTS = (
    Variant("se_resnet18", "resnet18", "se", "ResNet-18, SE in each block."),
    Variant("cbam_resnet18", "resnet18", "cbam", "ResNet-18, CBAM in each block."),
    Variant("bam_resnet18", "resnet18", "bam", "ResNet-18, BAM in front of its last three strides."),
    Variant("bam_mul_resnet18", "resnet18", "bam_mul", "ResNet-18, BAM as its official code has it: the product of the branches."),
    Variant("se_resnet34", "resnet34", "se", "ResNet-34, SE in each block."),
    Variant("cbam_resnet34", "resnet34", "cbam", "ResNet-34, CBAM in each block."),
    Variant("bam_resnet34", "resnet34", "bam", "ResNet-34, BAM in front of its last three strides."),
    Variant("bam_mul_resnet34", "resnet34", "bam_mul", "ResNet-34, BAM as its official code has it: the product of the branches."),
    Variant("se_resnet50", "resnet50", "se", "ResNet-50, SE in each block."),
    Variant("cbam_resnet50", "resnet50", "cbam", "ResNet-50, CBAM in each block."),
    Variant("bam_resnet50", "resnet50", "bam", "ResNet-50, BAM in front of its last three strides."),
    Variant("bam_mul_resnet50", "resnet50", "bam_mul", "ResNet-50, BAM as its official code has it: the product of the branches."),
    Variant("se_resnet101", "resnet101", "se", "ResNet-101, SE in each block."),
    Variant("cbam_resnet101", "resnet101", "cbam", "ResNet-101, CBAM in each block."),
    Variant("bam_resnet101", "resnet101", "bam", "ResNet-101, BAM in front of its last three strides."),
    Variant("bam_mul_resnet101", "resnet101", "bam_mul", "ResNet-101, BAM as its official code has it: the product of the branches."),
    Variant("se_resnet152", "resnet152", "se", "ResNet-152, SE in each block."),
    Variant("cbam_resnet152", "resnet152", "cbam", "ResNet-152, CBAM in each block."),
    Variant("bam_resnet152", "resnet152", "bam", "ResNet-152, BAM in front of its last three strides."),
    Variant("bam_mul_resnet152", "resnet152", "bam_mul", "ResNet-152, BAM as its official code has it: the product of the branches."),
    Variant("se_resnext50_32x4d", "resnext50_32x4d", "se", "ResNeXt-50 32x4d, SE in each block."),
    Variant("cbam_resnext50_32x4d", "resnext50_32x4d", "cbam", "ResNeXt-50 32x4d, CBAM in each block."),
    Variant("bam_resnext50_32x4d", "resnext50_32x4d", "bam", "ResNeXt-50 32x4d, BAM in front of its last three strides."),
    Variant("se_resnext101_32x4d", "resnext101_32x4d", "se", "ResNeXt-101 32x4d, SE in each block."),
    Variant("cbam_resnext101_32x4d", "resnext101_32x4d", "cbam", "ResNeXt-101 32x4d, CBAM in each block."),
    Variant("bam_resnext101_32x4d", "resnext101_32x4d", "bam", "ResNeXt-101 32x4d, BAM in front of its last three strides."),
    Variant("wide_resnet18_1p5", "wide_resnet18_1p5", None, "ResNet-18 with 1.5 times the channels (CBAM paper, Table 4)."),
    Variant("se_wide_resnet18_1p5", "wide_resnet18_1p5", "se", "ResNet-18 with 1.5 times the channels, SE in each block."),
    Variant("cbam_wide_resnet18_1p5", "wide_resnet18_1p5", "cbam", "ResNet-18 with 1.5 times the channels, CBAM in each block."),
    Variant("bam_wide_resnet18_1p5", "wide_resnet18_1p5", "bam", "ResNet-18 with 1.5 times the channels, BAM in front of its last three strides."),
    Variant("wide_resnet18_2", "wide_resnet18_2", None, "ResNet-18 with twice the channels (CBAM paper, Table 4)."),
    Variant("se_wide_resnet18_2", "wide_resnet18_2", "se", "ResNet-18 with twice the channels, SE in each block."),
    Variant("cbam_wide_resnet18_2", "wide_resnet18_2", "cbam", "ResNet-18 with twice the channels, CBAM in each block."),
    Variant("bam_wide_resnet18_2", "wide_resnet18_2", "bam", "ResNet-18 with twice the channels, BAM in front of its last three strides."),
    Variant("mobilenetv1_070", "mobilenetv1_070", None, "MobileNetV1 0.7 (CBAM paper, Table 5)."),
    Variant("se_mobilenetv1_070", "mobilenetv1_070", "se", "MobileNetV1 0.7, SE after each pointwise convolution."),
    Variant("cbam_mobilenetv1_070", "mobilenetv1_070", "cbam", "MobileNetV1 0.7, CBAM after each depthwise and pointwise convolution."),
    Variant("bam_mobilenetv1_070", "mobilenetv1_070", "bam", "MobileNetV1 0.7, BAM in front of its last three strides."),
    Variant("se_mobilenetv1_100", "mobilenetv1_100", "se", "MobileNetV1 1.0, SE after each pointwise convolution."),
    Variant("cbam_mobilenetv1_100", "mobilenetv1_100", "cbam", "MobileNetV1 1.0, CBAM after each depthwise and pointwise convolution."),
    Variant("bam_mobilenetv1_100", "mobilenetv1_100", "bam", "MobileNetV1 1.0, BAM in front of its last three strides."),
    Variant("se_mobilenetv2_050", "mobilenetv2_050", "se", "MobileNetV2 0.5, SE after each depthwise convolution."),
    Variant("cbam_mobilenetv2_050", "mobilenetv2_050", "cbam", "MobileNetV2 0.5, CBAM after each depthwise convolution."),
    Variant("bam_mobilenetv2_050", "mobilenetv2_050", "bam", "MobileNetV2 0.5, BAM in front of its last three strides."),
    Variant("se_mobilenetv2_100", "mobilenetv2_100", "se", "MobileNetV2 1.0, SE after each depthwise convolution."),
    Variant("cbam_mobilenetv2_100", "mobilenetv2_100", "cbam", "MobileNetV2 1.0, CBAM after each depthwise convolution."),
    Variant("bam_mobilenetv2_100", "mobilenetv2_100", "bam", "MobileNetV2 1.0, BAM in front of its last three strides."),
    Variant("se_mobilenetv2_140", "mobilenetv2_140", "se", "MobileNetV2 1.4, SE after each depthwise convolution."),
    Variant("cbam_mobilenetv2_140", "mobilenetv2_140", "cbam", "MobileNetV2 1.4, CBAM after each depthwise convolution."),
    Variant("bam_mobilenetv2_140", "mobilenetv2_140", "bam", "MobileNetV2 1.4, BAM in front of its last three strides."),
    Variant("cbam_mobilenetv3_small_100", "mobilenetv3_small_100", "spatial", "MobileNetV3 small, CBAM's spatial gate behind each of its SE."),
    Variant("bam_mobilenetv3_small_100", "mobilenetv3_small_100", "bam", "MobileNetV3 small, BAM in front of its last three strides."),
    Variant("cbam_mobilenetv3_large_100", "mobilenetv3_large_100", "spatial", "MobileNetV3 large, CBAM's spatial gate behind each of its SE."),
    Variant("bam_mobilenetv3_large_100", "mobilenetv3_large_100", "bam", "MobileNetV3 large, BAM in front of its last three strides."),
    Variant("resnet20_cifar", "resnet20_cifar", None, "ResNet-20 for 32x32 images (He et al. 2016, section 4.2)."),
    Variant("se_resnet20_cifar", "resnet20_cifar", "se", "ResNet-20 for 32x32 images, SE in each block."),
    Variant("cbam_resnet20_cifar", "resnet20_cifar", "cbam", "ResNet-20 for 32x32 images, CBAM in each block."),
    Variant("bam_resnet20_cifar", "resnet20_cifar", "bam", "ResNet-20 for 32x32 images, BAM in front of its last two strides."),
    Variant("resnet56_cifar", "resnet56_cifar", None, "ResNet-56 for 32x32 images (He et al. 2016, section 4.2)."),
    Variant("se_resnet56_cifar", "resnet56_cifar", "se", "ResNet-56 for 32x32 images, SE in each block."),
    Variant("cbam_resnet56_cifar", "resnet56_cifar", "cbam", "ResNet-56 for 32x32 images, CBAM in each block."),
    Variant("bam_resnet56_cifar", "resnet56_cifar", "bam", "ResNet-56 for 32x32 images, BAM in front of its last two strides."),
    Variant("resnet110_cifar", "resnet110_cifar", None, "ResNet-110 for 32x32 images (He et al. 2016, section 4.2)."),
    Variant("se_resnet110_cifar", "resnet110_cifar", "se", "ResNet-110 for 32x32 images, SE in each block."),
    Variant("cbam_resnet110_cifar", "resnet110_cifar", "cbam", "ResNet-110 for 32x32 images, CBAM in each block."),
    Variant("bam_resnet110_cifar", "resnet110_cifar", "bam", "ResNet-110 for 32x32 images, BAM in front of its last two strides."),
    Variant("resnet18_cifar", "resnet18_cifar", None, "ResNet-18 for 32x32 images."),
    Variant("se_resnet18_cifar", "resnet18_cifar", "se", "ResNet-18 for 32x32 images, SE in each block."),
    Variant("cbam_resnet18_cifar", "resnet18_cifar", "cbam", "ResNet-18 for 32x32 images, CBAM in each block."),
    Variant("bam_resnet18_cifar", "resnet18_cifar", "bam", "ResNet-18 for 32x32 images, BAM in front of its last three strides."),
    Variant("resnet50_cifar", "resnet50_cifar", None, "ResNet-50 for 32x32 images (BAM paper, CIFAR-100 table)."),
    Variant("se_resnet50_cifar", "resnet50_cifar", "se", "ResNet-50 for 32x32 images, SE in each block."),
    Variant("cbam_resnet50_cifar", "resnet50_cifar", "cbam", "ResNet-50 for 32x32 images, CBAM in each block."),
    Variant("bam_resnet50_cifar", "resnet50_cifar", "bam", "ResNet-50 for 32x32 images, BAM in front of its last three strides."),
    Variant("resnext29_8x64d_cifar", "resnext29_8x64d_cifar", None, "ResNeXt-29 8x64d for 32x32 images (Xie et al. 2017, section 5.3)."),
    Variant("se_resnext29_8x64d_cifar", "resnext29_8x64d_cifar", "se", "ResNeXt-29 8x64d for 32x32 images, SE in each block."),
    Variant("cbam_resnext29_8x64d_cifar", "resnext29_8x64d_cifar", "cbam", "ResNeXt-29 8x64d for 32x32 images, CBAM in each block."),
    Variant("bam_resnext29_8x64d_cifar", "resnext29_8x64d_cifar", "bam", "ResNeXt-29 8x64d for 32x32 images, BAM in front of its last two strides."),
    Variant("mobilenetv2_100_cifar", "mobilenetv2_100_cifar", None, "MobileNetV2 1.0 for 32x32 images."),
    Variant("se_mobilenetv2_100_cifar", "mobilenetv2_100_cifar", "se", "MobileNetV2 1.0 for 32x32 images, SE after each depthwise convolution."),
    Variant("cbam_mobilenetv2_100_cifar", "mobilenetv2_100_cifar", "cbam", "MobileNetV2 1.0 for 32x32 images, CBAM after each depthwise convolution."),
    Variant("bam_mobilenetv2_100_cifar", "mobilenetv2_100_cifar", "bam", "MobileNetV2 1.0 for 32x32 images, BAM in front of its last three strides."),
    Variant("eca_resnet18", "resnet18", "eca", "ResNet-18, ECA in each block."),
    Variant("eca_resnet50", "resnet50", "eca", "ResNet-50, ECA in each block."),
    Variant("eca_mobilenetv2_100", "mobilenetv2_100", "eca", "MobileNetV2 1.0, ECA after each depthwise convolution."),
    Variant("coord_resnet18", "resnet18", "coord", "ResNet-18, coordinate attention in each block."),
    Variant("coord_resnet50", "resnet50", "coord", "ResNet-50, coordinate attention in each block."),
    Variant("coord_mobilenetv2_100", "mobilenetv2_100", "coord", "MobileNetV2 1.0, coordinate attention after each depthwise convolution."),
    Variant("scse_resnet18", "resnet18", "scse", "ResNet-18, scSE in each block."),
    Variant("scse_resnet50", "resnet50", "scse", "ResNet-50, scSE in each block."),
    Variant("scse_mobilenetv2_100", "mobilenetv2_100", "scse", "MobileNetV2 1.0, scSE after each depthwise convolution."),
    Variant("simam_resnet18", "resnet18", "simam", "ResNet-18, SimAM in each block."),
    Variant("simam_resnet50", "resnet50", "simam", "ResNet-50, SimAM in each block."),
    Variant("simam_mobilenetv2_100", "mobilenetv2_100", "simam", "MobileNetV2 1.0, SimAM after each depthwise convolution."),
    Variant("triplet_resnet18", "resnet18", "triplet", "ResNet-18, triplet attention in each block."),
    Variant("triplet_resnet50", "resnet50", "triplet", "ResNet-50, triplet attention in each block."),
    Variant("triplet_mobilenetv2_100", "mobilenetv2_100", "triplet", "MobileNetV2 1.0, triplet attention after each depthwise convolution."),
    Variant("ha_resnet50", "resnet50", "ha", "ResNet-50, soft harmonious attention in each block."),
    Variant("ha_mobilenetv2_100", "mobilenetv2_100", "ha", "MobileNetV2 1.0, soft harmonious attention after each depthwise convolution."),
    Variant("hacnn", "hacnn", None, "HA-CNN for person re-identification at 160x64 (Li et al. 2018)."),
    Variant("r3d_18", "r3d_18", None, "R3D-18 for clips (Tran et al. 2018), torchvision's."),
    Variant("se_r3d_18", "r3d_18", "se", "R3D-18, SE in each block."),
    Variant("cbam_r3d_18", "r3d_18", "cbam", "R3D-18, CBAM in each block."),
    Variant("bam_r3d_18", "r3d_18", "bam", "R3D-18, BAM in front of its last three strides."),
    Variant("r2plus1d_18", "r2plus1d_18", None, "R(2+1)D-18 for clips (Tran et al. 2018), torchvision's."),
    Variant("se_r2plus1d_18", "r2plus1d_18", "se", "R(2+1)D-18, SE in each block."),
    Variant("cbam_r2plus1d_18", "r2plus1d_18", "cbam", "R(2+1)D-18, CBAM in each block."),
    Variant("bam_r2plus1d_18", "r2plus1d_18", "bam", "R(2+1)D-18, BAM in front of its last three strides."),
    Variant("resnet18_volume", "resnet18_volume", None, "ResNet-18 with a quarter of the channels for volumes of 28^3 to 64^3."),
    Variant("se_resnet18_volume", "resnet18_volume", "se", "Volumetric ResNet-18, SE in each block."),
    Variant("cbam_resnet18_volume", "resnet18_volume", "cbam", "Volumetric ResNet-18, CBAM in each block."),
    Variant("bam_resnet18_volume", "resnet18_volume", "bam", "Volumetric ResNet-18, BAM in front of its last three strides."),
)
# fmt: on


def resolve(variant: Variant, attn_kwargs: Mapping[str, Any] | None) -> tuple[MakeGate, Place]:
    """The gate factory and the placement of a row; a ValueError that names the choices for a wrong `attn_kwargs`."""
    assert variant.attention is not None
    row, backbone, given = ATTENTIONS[variant.attention], BACKBONES[variant.backbone], dict(attn_kwargs or {})
    options = row.options(backbone.dims)
    for key in given:
        if key not in options:
            choices = ", ".join(f"{name}={default!r}" for name, default in options.items())
            raise ValueError(f"attn_kwargs has an unknown key {key!r}; {row.gate.__name__} takes {choices}")
    place = given.pop("place", row.places[0])
    if place not in row.places:
        raise ValueError(f"place must be one of {', '.join(row.places)}, not {place!r}")
    if backbone.dims == 3:
        given = {**row.in_volumes, **given, "dims": 3}
    places = backbone.places
    return partial(row.gate, **row.fixed, **given), places.get(variant.attention) or places[place]


def build(variant: Variant, attn_kwargs: Mapping[str, Any] | None = None, **kwargs: Any) -> Network:
    """The network of a row: the plain backbone, then its gates. `kwargs` are the backbone's."""
    backbone = BACKBONES[variant.backbone]
    if variant.attention is None:
        if attn_kwargs:
            raise ValueError(f"{variant.name} has no attention, so attn_kwargs={attn_kwargs!r} has no place in it")
        return backbone.build(**kwargs)
    factory, place = resolve(variant, attn_kwargs)
    model = backbone.build(**kwargs)
    model.gate_sites = tuple(place(model, factory))
    return model


def _register(variant: Variant) -> Callable[..., nn.Module]:
    backbone = BACKBONES[variant.backbone]
    filter_fn = fold_gates if variant.attention or backbone.dims == 3 else None

    def entrypoint(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        make = partial(
            build_model_with_cfg,
            partial(build, variant),
            variant.name,
            pretrained,
            feature_cfg=dict(backbone.features),
            pretrained_filter_fn=filter_fn,
            **kwargs,
        )
        tag = kwargs.get("pretrained_cfg")
        return fetch(make, f"{variant.name}.{tag}" if isinstance(tag, str) else variant.name) if pretrained else make()

    entrypoint.__name__ = entrypoint.__qualname__ = variant.name
    entrypoint.__doc__ = variant.doc
    return register_model(entrypoint)


def _cfgs(variant: Variant, weights: tuple[Weights, ...]) -> dict[str, PretrainedCfg]:
    """`name.tag` -> timm's pretrained_cfg: the manifest's rows of a model, then its warm start.

    timm takes the first one that has weights for the model without a tag, and with it the number of classes. So
    weights for other classes than the backbone's own come behind a default that is marked with `*`.
    """
    backbone = BACKBONES[variant.backbone]
    plain = replace(PretrainedCfg(**backbone.cfg), architecture=None, tag=None)
    kept = {key: getattr(plain, key) for key in ("first_conv", "classifier", "pool_size")}
    rows = {
        row.name: PretrainedCfg(
            **{
                **kept,
                **row.config,
                "file": str(row.path()) if row.file else None,
                "hf_hub_id": row.pinned or None,
                "hf_hub_filename": FILE_NAME if row.hub else None,
                "license": row.license or None,
            }
        )
        for row in sorted(weights, key=lambda row: row.config["num_classes"] != plain.num_classes)
    }
    own = any(cfg.num_classes == plain.num_classes for cfg in rows.values())
    star = "" if own or not rows else "*"
    if backbone.tag and variant.attention is None:
        return {**rows, f"{variant.name}.{backbone.tag}{star}": plain}
    if backbone.tag and variant.attention and ATTENTIONS[variant.attention].exact:
        return {**rows, f"{variant.name}.warm_{backbone.tag}{star}": plain}
    return rows if own else {**rows, f"{variant.name}.untrained{star}": replace(plain, hf_hub_id=None, url=None)}


_WEIGHTS = read_manifest()
default_cfgs = generate_default_cfgs(
    {
        name: cfg
        for variant in VARIANTS
        for name, cfg in _cfgs(variant, tuple(row for row in _WEIGHTS if row.model == variant.name)).items()
    }
)
globals().update({variant.name: _register(variant) for variant in VARIANTS})
