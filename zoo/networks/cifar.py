"""Networks for 32x32 images, out of timm's classes: a 3x3 stem with stride 1 and no early pooling.

`CifarResNet` has three stages (He et al. 2016, section 4.2: ResNet-20, -56, -110) or four, and timm's projection
shortcuts where He et al. pad with zeros. `cifar_mobilenet_v2` keeps MobileNetV2's last three strides.
"""

from typing import Any

from timm.models.efficientnet import EfficientNet, decode_arch_def
from timm.models.resnet import ResNet, feature_take_indices
from torch import Tensor, nn

STEM_STRIDE = 4
"""timm's stem and pooling make an image smaller by this factor; these networks keep its size there."""


class CifarResNet(ResNet):
    """timm's ResNet for (B, C, 32, 32) and up, with `len(layers)` stages; `output_stride` 8 (default), 4 or 2."""

    def __init__(
        self,
        block: type[nn.Module],
        layers: tuple[int, ...],
        channels: tuple[int, ...],
        in_chans: int = 3,
        output_stride: int = 8,
        device: Any = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        # timm fixes the width of its one-convolution stem at 64 and lets only the deep one choose.
        super().__init__(
            block,  # pyright: ignore[reportArgumentType]
            layers,
            channels=channels,
            in_chans=in_chans,
            output_stride=output_stride * STEM_STRIDE,
            stem_type="deep",
            stem_width=channels[0] // 2,
            device=device,
            dtype=dtype,
            **kwargs,
        )
        self.conv1 = nn.Conv2d(in_chans, channels[0], 3, padding=1, bias=False, device=device, dtype=dtype)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        if len(layers) == 3:
            self.layer4 = nn.Sequential()  # timm's forward names four stages; an empty one passes its input on
        info: dict[str, Any]
        for info in self.feature_info:
            info["reduction"] = max(1, info["reduction"] // STEM_STRIDE)

    def forward_intermediates(
        self, x: Tensor, indices: int | list[int] | None = None, *args: Any, **kwargs: Any
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """As timm's; the indices count the stem and the stages that the network has."""
        take, _ = feature_take_indices(len(self.feature_info), indices)
        return super().forward_intermediates(x, take, *args, **kwargs)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As timm's; the indices count the stem and the stages that the network has."""
        take, deepest = feature_take_indices(len(self.feature_info), indices)
        if deepest == len(self.feature_info) - 1:
            deepest = 4  # the end of the network for timm, which keeps the head there
        super().prune_intermediate_layers([deepest], prune_norm, prune_head)
        return take


def cifar_mobilenet_v2(**kwargs: Any) -> EfficientNet:
    """MobileNetV2 1.0 (Sandler et al. 2018, Table 2) with the strides of its stem and of its second stage taken out."""
    stages = [
        ["ds_r1_k3_s1_c16"],
        ["ir_r2_k3_s1_e6_c24"],
        ["ir_r3_k3_s2_e6_c32"],
        ["ir_r4_k3_s2_e6_c64"],
        ["ir_r3_k3_s1_e6_c96"],
        ["ir_r3_k3_s2_e6_c160"],
        ["ir_r1_k3_s1_e6_c320"],
    ]
    model: Any = EfficientNet(**{"act_layer": nn.ReLU6, **kwargs, "block_args": decode_arch_def(stages)})
    model.conv_stem.stride = (1, 1)
    for info in model.feature_info:
        info["reduction"] = info["reduction"] // 2
    return model
