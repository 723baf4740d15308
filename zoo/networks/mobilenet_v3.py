"""timm's MobileNetV3 and V4 with an output stride of 8 or 16, for segmentation.

timm gives it to the class that returns features alone, and gates go into the whole network.
"""

from typing import Any

import timm
from timm.models.mobilenetv3 import MobileNetV3
from torch import nn


def mobilenet_v3(name: str, output_stride: int = 32, **kwargs: Any) -> MobileNetV3:
    """timm's network `name`; strides that would make a map smaller than 1 / `output_stride` become dilations.

    As timm's builder has it: a block that loses its stride keeps its dilation, and the blocks behind it are dilated.
    """
    model: Any = timm.model_entrypoint(name)(**kwargs)
    stride, dilation = 2, 1  # behind the stem
    for block in (block for stage in model.blocks for block in stage):
        convs = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
        own = max((conv.stride[0] for conv in convs), default=1)
        fits = stride * own <= output_stride
        for conv in convs:
            padding = dilation * (conv.kernel_size[0] - 1) // 2
            conv.dilation, conv.padding = (dilation, dilation), (padding, padding)
            conv.stride = conv.stride if fits else (1, 1)
        stride, dilation = (stride * own, dilation) if fits else (stride, dilation * own)
    for info in model.feature_info:
        info["reduction"] = min(info["reduction"], output_stride)
    return model
