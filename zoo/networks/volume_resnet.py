"""Networks for volumes and clips (B, C, D, H, W): torchvision's video ResNets and a small volumetric one.

`r3d_18` and `r2plus1d_18` (Tran et al. 2018, arXiv 1711.11248) have torchvision's layers under torchvision's names, so
its Kinetics-400 weights load as they are. `resnet18_volume` is a ResNet-18 with a quarter of the channels for
volumes of 28^3 to 64^3. All but `r2plus1d_18` also take weights of a 2-D ResNet of their depth and width
(zoo/networks/inflate.py).

timm has no place for the depth of an input: `pretrained_cfg["input_size"]` is (C, H, W) as for images, and the model
has an attribute `depth` beside it. `reduction` in `feature_info` is that of height and width. `output_stride`,
`drop_path_rate` and other options of timm's ResNet that are missing here raise a TypeError.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.layers import get_device_dtype
from timm.models import checkpoint
from timm.models.resnet import feature_take_indices
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, Conv3DSimple

from zoo.networks.inflate import adapt_channels, inflate


@torch.fx.wrap
def _require_volume(x: Tensor) -> Tensor:
    if x.dim() != 5:
        raise ValueError(f"a volume network takes (B, C, D, H, W), not {x.dim()} axes; an image is a volume of depth 1")
    return x


POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": lambda x: x.mean((2, 3, 4)),
    "max": lambda x: x.amax((2, 3, 4)),
    "": lambda x: x,
}
"""What `global_pool` may be."""


def _conv(channels: int, out_channels: int, kernel: Sequence[int], stride: Sequence[int] = (1, 1, 1)) -> nn.Conv3d:
    padding = tuple(size // 2 for size in kernel)
    return nn.Conv3d(channels, out_channels, tuple(kernel), tuple(stride), padding, bias=False)  # pyright: ignore


def video_stem(in_chans: int, width: int) -> nn.Sequential:
    """The stem of R3D: 3x7x7, halves height and width, keeps the depth."""
    return nn.Sequential(_conv(in_chans, width, (3, 7, 7), (1, 2, 2)), nn.BatchNorm3d(width), nn.ReLU(inplace=True))


def factorised_stem(in_chans: int, width: int) -> nn.Sequential:
    """The stem of R(2+1)D: 1x7x7 to 45 channels, then 3x1x1; halves height and width, keeps the depth."""
    return nn.Sequential(
        _conv(in_chans, 45, (1, 7, 7), (1, 2, 2)),
        nn.BatchNorm3d(45),
        nn.ReLU(inplace=True),
        _conv(45, width, (3, 1, 1)),
        nn.BatchNorm3d(width),
        nn.ReLU(inplace=True),
    )


def cubic_stem(in_chans: int, width: int) -> nn.Sequential:
    """3x3x3, halves depth, height and width."""
    return nn.Sequential(_conv(in_chans, width, (3, 3, 3), (2, 2, 2)), nn.BatchNorm3d(width), nn.ReLU(inplace=True))


class VolumeResNet(nn.Module):
    """A ResNet of torchvision's video blocks: (B, in_chans, D, H, W) -> (B, num_classes)."""

    def __init__(
        self,
        conv: type[nn.Module],
        stem: Callable[[int, int], nn.Sequential],
        depth: int,
        channels: Sequence[int] = (64, 128, 256, 512),
        layers: Sequence[int] = (2, 2, 2, 2),
        num_classes: int = 400,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans, self.drop_rate, self.depth = num_classes, in_chans, drop_rate, depth
        self.num_features = self.head_hidden_size = channels[-1]
        self.grad_checkpointing = False
        self.global_pool = _require_pool(global_pool)
        with torch.device(device if device is not None else torch.get_default_device()):
            self.stem = stem(in_chans, channels[0])
            widths = [channels[0], *channels]
            stages = [
                _stage(conv, before, after, count, stride=2 if i else 1)
                for i, (before, after, count) in enumerate(zip(widths[:-1], channels, layers, strict=True))
            ]
            self.layer1, self.layer2, self.layer3, self.layer4 = stages
            self.fc = nn.Linear(channels[-1], num_classes) if num_classes else nn.Identity()
        self._initialise()
        if dtype is not None:
            self.to(dtype)
        names = ("stem", "layer1", "layer2", "layer3", "layer4")
        self.feature_info = [
            {"num_chs": width, "reduction": 2 ** max(1, i), "module": name}
            for i, (width, name) in enumerate(zip(widths, names, strict=True))
        ]

    def _initialise(self) -> None:
        """Initial values as torchvision draws them."""
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def adapt_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights as this network takes them: inflated if they are a 2-D network's, and for its input channels.

        Raises ValueError if they cannot be inflated.
        """
        return adapt_channels(inflate(weights, self), "stem.0.weight", self.in_chans)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Regular expressions that tell the layers apart, for timm's layer-wise decay of the learning rate."""
        return {"stem": r"^stem", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each stage again in the backward pass instead of keeping its maps."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new last layer. With `global_pool=""`, which takes `num_classes=0`, the output is the last map."""
        dd: Any = get_device_dtype(self)
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = _require_pool(global_pool)
        self.fc = (nn.Linear(self.num_features, num_classes, **dd) if num_classes else nn.Identity()).train(
            self.training
        )

    def _stages(self) -> list[nn.Module]:
        return [self.layer1, self.layer2, self.layer3, self.layer4]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting() and len(stage):  # pyright: ignore
            return checkpoint(stage, x)
        return stage(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps (B, C, D, H, W) of the stem and of the four stages; arguments and results as in timm."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, which means channels first here, not {output_fmt!r}")
        take, deepest = feature_take_indices(5, indices)
        x = self.stem(_require_volume(x))
        taken = [x] if 0 in take else []
        for i, stage in enumerate(self._stages()[:deepest] if stop_early else self._stages(), start=1):
            x = self._run(stage, x)
            if i in take:
                taken.append(x)
        return taken if intermediates_only else (x, taken)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages behind the deepest index, and with them the head."""
        take, deepest = feature_take_indices(5, indices)
        for i in range(deepest + 1, 5):
            setattr(self, f"layer{i}", nn.Sequential())
        if deepest < 4:
            self.num_features = self.head_hidden_size = self.feature_info[deepest]["num_chs"]
        if prune_head or deepest < 4:
            self.reset_classifier(0, "")
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, D, H, W) -> (B, 512, D / 8, H / 16, W / 16), rounded up; `resnet18_volume` D / 16 too."""
        x = self.stem(_require_volume(x))
        for stage in self._stages():
            x = self._run(stage, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> pooled features (`pre_logits`) or logits."""
        x = POOLS[self.global_pool](x)
        x = nn.functional.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, D, H, W) -> (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _require_pool(pool: str) -> str:
    if pool not in POOLS:
        raise ValueError(f"global_pool of a volume network must be {', '.join(map(repr, POOLS))}, not {pool!r}")
    return pool


def _stage(conv: Any, channels: int, out_channels: int, count: int, stride: int) -> nn.Sequential:
    """`count` residual blocks, the first of which halves all three axes if `stride` is 2."""
    shortcut = None
    if stride > 1:
        shortcut = nn.Sequential(
            nn.Conv3d(channels, out_channels, 1, conv.get_downsample_stride(stride), bias=False),
            nn.BatchNorm3d(out_channels),
        )
    blocks = [BasicBlock(channels, out_channels, conv, stride, shortcut)]
    blocks += [BasicBlock(out_channels, out_channels, conv) for _ in range(count - 1)]
    return nn.Sequential(*blocks)


r3d_18 = partial(VolumeResNet, Conv3DSimple, video_stem, depth=16)
r2plus1d_18 = partial(VolumeResNet, Conv2Plus1D, factorised_stem, depth=16)
resnet18_volume = partial(VolumeResNet, Conv3DSimple, cubic_stem, depth=32, channels=(16, 32, 64, 128))
