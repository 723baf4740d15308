"""The plain networks of the catalogue, their published weights, and where attention goes in each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
from timm.models.resnet import BasicBlock, Bottleneck, ResNet

from zoo.models import placement
from zoo.models.placement import Network, Placement
from zoo.networks.cifar import CifarResNet, cifar_mobilenet_v2
from zoo.networks.hacnn import HACNN
from zoo.networks.mobilenet_v1 import mobilenet_v1
from zoo.networks.mobilenet_v3 import mobilenet_v3
from zoo.networks.volume_resnet import r2plus1d_18, r3d_18, resnet18_volume


@dataclass(frozen=True)
class Backbone:
    """A plain network and where attention goes in it."""

    build: Callable[..., Network]
    placements: Mapping[str, Placement]
    """How gates are put in, by an attention's own key of ATTENTIONS if it is here, else by its `where`; empty for a
    network that takes none."""
    tag: str = ""
    """Published weights of this network that a warm start reads; empty where there are none."""
    cfg: Mapping[str, Any] = field(default_factory=dict)
    """Fields of timm's pretrained_cfg, with the source of the weights `tag`."""
    features: Mapping[str, Any] = field(default_factory=dict)
    """Settings of timm's `features_only`."""
    dims: int = 2
    """Spatial axes of its input: 2, or 3 for volumes."""


def _from_timm(
    name: str,
    tag: str,
    placements: Mapping[str, Placement],
    features: Mapping[str, Any] | None = None,
    build: Callable[..., Network] | None = None,
) -> Backbone:
    """A backbone that timm has under `name`, with its weights `tag`; made by `build(name)` or timm's entry point."""
    cfg = timm.models.get_pretrained_cfg(f"{name}.{tag}")
    assert cfg is not None, f"timm has no weights {name}.{tag}"
    source = {"hf_hub_id": f"timm/{name}.{tag}", "url": None}
    return Backbone(
        partial(build, name) if build else timm.model_entrypoint(name),
        placements,
        tag,
        {**cfg.to_dict(), **source},
        features or {},
    )


IN_RESNET: dict[str, Placement] = {"block": placement.at_branch_ends, "strides": placement.at_strides}
IN_VOLUME_RESNET: dict[str, Placement] = {"block": placement.at_volume_branch_ends, "strides": placement.at_strides}
IN_MOBILENET_V1: dict[str, Placement] = {
    "block": placement.after_pointwise,
    "strides": placement.at_strides,
    "cbam": placement.after_depthwise_and_pointwise,
}
IN_MOBILENET_V2: dict[str, Placement] = {"block": placement.in_se_slots, "strides": placement.at_strides}
IN_MOBILENET_V3: dict[str, Placement] = {"block": placement.behind_se, "strides": placement.at_strides}

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
wide_resnet18 = partial(ResNet, BasicBlock, layers=(2, 2, 2, 2))  # pyright: ignore[reportArgumentType]  timm's hint

BACKBONES = {
    "resnet18": _from_timm("resnet18", "a1_in1k", IN_RESNET),
    "resnet34": _from_timm("resnet34", "a1_in1k", IN_RESNET),
    "resnet50": _from_timm("resnet50", "a1_in1k", IN_RESNET),
    "resnet101": _from_timm("resnet101", "a1h_in1k", IN_RESNET),
    "resnet152": _from_timm("resnet152", "a1h_in1k", IN_RESNET),
    "resnext50_32x4d": _from_timm("resnext50_32x4d", "a1h_in1k", IN_RESNET),
    "resnext101_32x4d": _from_timm("resnext101_32x4d", "gluon_in1k", IN_RESNET),
    "resnet18d": _from_timm("resnet18d", "ra2_in1k", IN_RESNET),
    "resnet26d": _from_timm("resnet26d", "bt_in1k", IN_RESNET),
    "resnet50d": _from_timm("resnet50d", "ra2_in1k", IN_RESNET),
    "resnet101d": _from_timm("resnet101d", "ra2_in1k", IN_RESNET),
    "wide_resnet18_1p5": Backbone(partial(wide_resnet18, channels=(96, 192, 384, 768)), IN_RESNET, cfg=IMAGENET_RESNET),
    "wide_resnet18_2": Backbone(partial(wide_resnet18, channels=(128, 256, 512, 1024)), IN_RESNET, cfg=IMAGENET_RESNET),
    "mobilenetv1_070": Backbone(partial(mobilenet_v1, 0.7), IN_MOBILENET_V1, cfg=IMAGENET_MOBILENET, features=FLAT),
    "mobilenetv1_100": _from_timm("mobilenetv1_100", "ra4_e3600_r224_in1k", IN_MOBILENET_V1, FLAT),
    "mobilenetv2_050": _from_timm("mobilenetv2_050", "lamb_in1k", IN_MOBILENET_V2, FLAT),
    "mobilenetv2_100": _from_timm("mobilenetv2_100", "ra_in1k", IN_MOBILENET_V2, FLAT),
    "mobilenetv2_140": _from_timm("mobilenetv2_140", "ra_in1k", IN_MOBILENET_V2, FLAT),
    "mobilenetv2_110d": _from_timm("mobilenetv2_110d", "ra_in1k", IN_MOBILENET_V2, FLAT),
    "mobilenetv2_120d": _from_timm("mobilenetv2_120d", "ra_in1k", IN_MOBILENET_V2, FLAT),
    "mobilenetv4_conv_small": _from_timm(
        "mobilenetv4_conv_small", "e2400_r224_in1k", IN_MOBILENET_V2, FLAT, mobilenet_v3
    ),
    "mobilenetv4_conv_medium": _from_timm(
        "mobilenetv4_conv_medium", "e500_r256_in1k", IN_MOBILENET_V2, FLAT, mobilenet_v3
    ),
    "tf_efficientnet_lite0": _from_timm("tf_efficientnet_lite0", "in1k", IN_MOBILENET_V2, FLAT),
    "mobilenetv3_small_100": _from_timm("mobilenetv3_small_100", "lamb_in1k", IN_MOBILENET_V3, FLAT, mobilenet_v3),
    "mobilenetv3_large_100": _from_timm("mobilenetv3_large_100", "ra_in1k", IN_MOBILENET_V3, FLAT, mobilenet_v3),
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
