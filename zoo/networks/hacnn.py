"""HA-CNN, the harmonious attention network: Li et al. 2018, arXiv 1802.08122, section 3.

A small network for person re-identification, after the public re-implementation in torchreid, whose parameter counts
it has (3.700 M with 751 identities, 2.000 M without the local branch):

    global   stem -> [inception A, inception B, soft attention] x 3 -> mean -> 512
    local    at each of the three levels, crop T regions of the level's input (hard attention), add what the level
             before made of them, inception B -> mean -> 512

Deviations: any input size; the T regions go through the local branch as one batch, so in training its norms see them
together; one output, the mean of both branches' logits, where torchreid returns a pair (`forward_branches`).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from timm.layers import SelectAdaptivePool2d, get_device_dtype
from timm.models import checkpoint
from timm.models.resnet import feature_take_indices
from torch import Tensor, nn

from zoo.attention import HarmoniousAttention
from zoo.attention.norms import GateBatchNorm1d
from zoo.attention.ops import laid_out_as


class ConvNormAct(nn.Sequential):
    """Convolution with bias, batch norm, ReLU: (B, C, H, W) -> (B, out_channels, H / stride, W / stride)."""

    def __init__(
        self, channels: int, out_channels: int, kernel_size: int, stride: int = 1, device: Any = None, dtype: Any = None
    ) -> None:
        padding, dd = kernel_size // 2, {"device": device, "dtype": dtype}
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel_size, stride, padding, **dd)
        self.bn = nn.BatchNorm2d(out_channels, **dd)
        self.act = nn.ReLU(inplace=True)


class Inception(nn.Module):
    """Parallel branches, their outputs joined along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out_channels, H / stride, W / stride)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception_a(channels: int, out_channels: int, device: Any = None, dtype: Any = None) -> Inception:
    """Keeps the size (paper, Figure 2): three times 1x1, 3x3, and once mean, 1x1, a quarter of the channels each."""
    quarter, dd = out_channels // 4, {"device": device, "dtype": dtype}

    def narrow() -> nn.Module:
        return nn.Sequential(ConvNormAct(channels, quarter, 1, **dd), ConvNormAct(quarter, quarter, 3, **dd))

    pooled = nn.Sequential(nn.AvgPool2d(3, stride=1, padding=1), ConvNormAct(channels, quarter, 1, **dd))
    return Inception(narrow(), narrow(), narrow(), pooled)


def inception_b(channels: int, out_channels: int, device: Any = None, dtype: Any = None) -> Inception:
    """Halves the size (paper, Figure 2): one and two 3x3, a quarter of the channels each, and maximum, 1x1, a half."""
    quarter, dd = out_channels // 4, {"device": device, "dtype": dtype}
    return Inception(
        nn.Sequential(ConvNormAct(channels, quarter, 1, **dd), ConvNormAct(quarter, quarter, 3, 2, **dd)),
        nn.Sequential(
            ConvNormAct(channels, quarter, 1, **dd),
            ConvNormAct(quarter, quarter, 3, **dd),
            ConvNormAct(quarter, quarter, 3, 2, **dd),
        ),
        nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), ConvNormAct(channels, 2 * quarter, 1, **dd)),
    )


class Level(nn.Module):
    """A level of both branches."""

    def __init__(
        self,
        channels: int,
        out_channels: int,
        regions: int,
        region_size: tuple[int, int],
        local_branch: bool,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.inception = nn.Sequential(
            inception_a(channels, out_channels, **dd), inception_b(out_channels, out_channels, **dd)
        )
        self.attention = HarmoniousAttention(out_channels, regions, **dd)
        self.region_size = region_size
        self.local = inception_b(channels, out_channels, **dd) if local_branch else None
        self.grad_checkpointing = False

    def forward(self, x: Tensor, regions: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The level's input (B, C, H, W) and the regions so far (B * T, C, h, w), if any -> those of the next level."""
        if self.grad_checkpointing and not torch.jit.is_scripting():
            y = checkpoint(self.inception, x)
        else:
            y = self.inception(x)
        y, centres = self.attention(y)
        if self.local is None:
            return y, None
        crops = self.attention.hard.crop(x, centres, self.region_size[0], self.region_size[1])
        return y, self.local(crops if regions is None else crops + regions)


class HACNN(nn.Module):
    """(B, in_chans, H, W) -> (B, num_classes), or the joined features (B, 1024) with `num_classes=0`.

    Those are the two branches' 512 features, each of unit length, as torchreid compares them. `region_size` is the
    size (height, width) to which regions are resized at the first level; it halves from level to level.
    """

    def __init__(
        self,
        num_classes: int = 751,
        in_chans: int = 3,
        global_pool: str = "avg",
        regions: int = 4,
        region_size: tuple[int, int] = (24, 28),
        local_branch: bool = True,
        widths: Sequence[int] = (32, 128, 256, 384),
        feature_width: int = 512,
        drop_rate: float = 0.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.num_classes, self.in_chans, self.drop_rate = num_classes, in_chans, drop_rate
        self.regions, self.local_branch, self.feature_width = regions, local_branch, feature_width
        self.grad_checkpointing = False
        self.global_width = widths[-1]
        self.stem = ConvNormAct(in_chans, widths[0], 3, 2, **dd)
        height, width = region_size
        levels = []
        for channels, out_channels in pairwise(widths):
            levels.append(Level(channels, out_channels, regions, (height, width), local_branch, **dd))
            height, width = (height + 1) // 2, (width + 1) // 2
        self.levels = nn.ModuleList(levels)
        if not local_branch:
            self._drop_local_branch()
        names = ["stem", *(f"levels.{i}" for i in range(len(levels)))]
        self.feature_info = [
            {"num_chs": channels, "reduction": 2 ** (i + 1), "module": name}
            for i, (channels, name) in enumerate(zip(widths, names, strict=True))
        ]
        self.num_features = self.global_width * (1 + regions * local_branch)
        self.head_hidden_size = feature_width * (1 + local_branch)
        self.global_pool = _pool(global_pool)
        self.fc_global = _features(self.global_width, feature_width, **dd)
        self.fc_local = _features(self.global_width * regions, feature_width, **dd) if local_branch else nn.Identity()
        self.head_drop = nn.Dropout(drop_rate)
        self.classifier_global, self.classifier_local = nn.Identity(), nn.Identity()
        self.reset_classifier(num_classes)
        for module in self.modules():
            if isinstance(module, ConvNormAct):
                nn.init.kaiming_normal_(module.conv.weight, mode="fan_out", nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layer groups of timm's layer decay."""
        return {"stem": r"^stem", "blocks": [(r"^levels\.(\d+)", None), (r"^fc_", (99998,))]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute the inception blocks again in the backward pass instead of keeping their maps."""
        self.grad_checkpointing = enable
        level: Any
        for level in self.levels:
            level.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The classifiers of the global and of the local branch."""
        return (self.classifier_global, self.classifier_local) if self.local_branch else self.classifier_global

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """New classifiers; `global_pool=""` leaves the maps as they are and wants `num_classes=0`."""
        dd: Any = get_device_dtype(self)
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = _pool(global_pool)
        self.classifier_global, self.classifier_local = nn.Identity(), nn.Identity()
        if num_classes:
            self.classifier_global = nn.Linear(self.feature_width, num_classes, **dd)
            if self.local_branch:
                self.classifier_local = nn.Linear(self.feature_width, num_classes, **dd)
        for module in (self.global_pool, self.classifier_global, self.classifier_local):
            module.train(self.training)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of the stem and of the global branch's levels, as timm's."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, not {output_fmt!r}")
        take, deepest = feature_take_indices(len(self.feature_info), indices)
        maps, regions = [self.stem(x)], None
        for level in self.levels[:deepest] if stop_early else self.levels:
            y, regions = level(maps[-1], regions)
            maps.append(y)
        taken = [y for i, y in enumerate(maps) if i in take]
        return taken if intermediates_only else (self._join(maps[-1], regions), taken)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the levels behind the deepest index; with them go the local branch and the head."""
        take, deepest = feature_take_indices(len(self.feature_info), indices)
        shorter = deepest < len(self.feature_info) - 1
        if shorter:
            self.levels = self.levels[:deepest]
            self.global_width = self.num_features = self.head_hidden_size = self.feature_info[deepest]["num_chs"]
            self._drop_local_branch()
        if prune_head or shorter:
            self.reset_classifier(0, "")
            self.fc_global, self.fc_local = nn.Identity(), nn.Identity()
        return take

    def _drop_local_branch(self) -> None:
        """Leave the global branch alone; the regressors of the regions stay, as in torchreid, but learn nothing."""
        self.local_branch = False
        level: Any
        for level in self.levels:
            level.local = None
            level.attention.hard.requires_grad_(False)

    def _join(self, y: Tensor, regions: Tensor | None) -> Tensor:
        if regions is None:
            return y
        local = regions.mean((2, 3)).unflatten(0, (-1, self.regions)).flatten(1)  # (B, T * C)
        # timm passes one tensor from the features to the head, so each place carries the regions' means along.
        everywhere = local[:, :, None, None].expand(-1, -1, y.shape[2], y.shape[3])
        return torch.cat((y, laid_out_as(everywhere, y)), 1)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, 384 * (1 + T), H / 16, W / 16): the global map, then the regions' means."""
        y, regions = self.stem(x), None
        for level in self.levels:
            y, regions = level(y, regions)
        return self._join(y, regions)

    def forward_branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, in_chans, H, W) -> the logits of the global and of the local branch, for a loss each as in the paper."""
        if not (self.local_branch and self.num_classes):
            raise ValueError("forward_branches needs local_branch=True and num_classes of at least 1")
        features = self.forward_head(self.forward_features(x), pre_logits=True)
        return self._classify(features)

    def _classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        width = self.feature_width
        return self.classifier_global(features[:, :width]), self.classifier_local(features[:, width:])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The map of `forward_features` -> features (`pre_logits`) or logits."""
        x = self.global_pool(x)
        if self.global_pool.is_identity():
            return x
        parts = [self.fc_global(x[:, : self.global_width])]
        if self.local_branch:
            parts.append(self.fc_local(x[:, self.global_width :]))
        if not self.num_classes and not pre_logits:
            return torch.cat([nn.functional.normalize(part) for part in parts], 1)
        features = self.head_drop(torch.cat(parts, 1))
        if pre_logits:
            return features
        if not self.local_branch:
            return self.classifier_global(features)
        global_logits, local_logits = self._classify(features)
        return (global_logits + local_logits) / 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _pool(kind: str) -> SelectAdaptivePool2d:
    if kind not in ("avg", "max", "avgmax", ""):
        raise ValueError(f"global_pool of HA-CNN must be 'avg', 'max', 'avgmax' or '', not {kind!r}")
    return SelectAdaptivePool2d(pool_type=kind, flatten=bool(kind))


def _features(width: int, feature_width: int, device: Any = None, dtype: Any = None) -> nn.Sequential:
    """Linear layer, batch norm that bears a single image, ReLU: (B, width) -> (B, feature_width)."""
    dd = {"device": device, "dtype": dtype}
    return nn.Sequential(
        nn.Linear(width, feature_width, **dd), GateBatchNorm1d(feature_width, **dd), nn.ReLU(inplace=True)
    )
