"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861, Table 1) of any width, out of timm's classes."""

from typing import Any

from timm.models.efficientnet import EfficientNet, decode_arch_def
from torch import nn


def mobilenet_v1(width: float, **kwargs: Any) -> EfficientNet:
    """MobileNetV1 for (B, 3, H, W), all channels times `width`: 2.30 M parameters at 0.7.

    Channels are rounded down, where timm would round them to multiples of 8. `kwargs` are those of timm's EfficientNet.
    """
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
