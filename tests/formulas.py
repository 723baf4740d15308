"""The formulas of the papers, written naively: one image, one channel or one place at a time.

A neutral gate is the paper's divided by a number of `STARTS`; CBAM's second gate reads the map that its first one left.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.attention import (
    BAM,
    CBAM,
    ECA,
    Attention,
    ChannelGate,
    CoordAttention,
    HAChannel,
    HASpatial,
    ScSE,
    SimAM,
    SoftAttention,
    SpatialGate,
    SqueezeExcite,
    TripletAttention,
)

Module = TypeVar("Module", bound=nn.Module)

BUILDS: dict[str, Callable[..., Attention]] = {
    "se": SqueezeExcite,
    "se_nobias": lambda c, **k: SqueezeExcite(c, bias=False, **k),
    "channel": ChannelGate,
    "channel_avg": lambda c, **k: ChannelGate(c, pool="avg", **k),
    "channel_max": lambda c, **k: ChannelGate(c, pool="max", **k),
    "spatial": SpatialGate,
    "spatial3_nonorm": lambda c, **k: SpatialGate(c, 3, norm=False, **k),
    "spatial_conv": lambda c, **k: SpatialGate(c, pool="conv", **k),
    "cbam": CBAM,
    "cbam_blog": lambda c, **k: CBAM(c, kernel_size=3, bias=False, norm=False, **k),
    "cbam_reversed": lambda c, **k: CBAM(c, arrangement="spatial_channel", **k),
    "cbam_parallel": lambda c, **k: CBAM(c, arrangement="parallel", **k),
    "cbam_pools": lambda c, **k: CBAM(c, channel_pool="max", spatial_pool="avg", **k),
    "bam": BAM,
    "bam_mul": lambda c, **k: BAM(c, fuse="mul", **k),
    "bam_max": lambda c, **k: BAM(c, fuse="max", **k),
    "bam_channel": lambda c, **k: BAM(c, branches="channel", **k),
    "bam_spatial": lambda c, **k: BAM(c, branches="spatial", **k),
    "bam_end_norm": lambda c, **k: BAM(c, end_norm=True, **k),
    "eca": ECA,
    "coord": CoordAttention,
    "scse": ScSE,
    "scse_max": lambda c, **k: ScSE(c, fuse="max", **k),
    "scse_mul": lambda c, **k: ScSE(c, fuse="mul", **k),
    "simam": SimAM,
    "triplet": TripletAttention,
    "ha": SoftAttention,
    "ha_spatial": HASpatial,
    "ha_channel": HAChannel,
}
MODULES = sorted(BUILDS)
CHANNELS = 32


def each_form(
    without: Sequence[str] = (), neutral: Sequence[str] = MODULES, published: Sequence[str] = MODULES
) -> pytest.MarkDecorator:
    """`name` and `neutral`: builds as published, and, of those in `neutral`, as neutral.

    Builds that are not named in `published` are left to `pytest --all` in that form.
    """
    names = [name for name in MODULES if name not in without]
    usual = [
        pytest.param(name, False, id=name, marks=[] if name in published else [pytest.mark.every]) for name in names
    ]
    divided = [pytest.param(name, True, id=f"{name}-neutral") for name in names if name in neutral and name != "simam"]
    return pytest.mark.parametrize(("name", "neutral"), usual + divided)


def randomised(module: Module) -> Module:
    """Give every norm weights and statistics that would show if it were left out or misplaced."""
    for m in module.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            assert m.running_mean is not None and m.running_var is not None
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.3)
            nn.init.normal_(m.running_mean, std=0.3)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return module


def build(name: str, **kwargs: object) -> Attention:
    return randomised(BUILDS[name](CHANNELS, **kwargs))


def naive_mlp(gate: SqueezeExcite | ChannelGate, z: Tensor) -> Tensor:
    w1, w2 = gate.fc1.weight, gate.fc2.weight
    b1 = gate.fc1.bias if gate.fc1.bias is not None else torch.zeros(len(w1))
    b2 = gate.fc2.bias if gate.fc2.bias is not None else torch.zeros(len(w2))
    return w2 @ (w1 @ z + b1).clamp(min=0) + b2


def naive_bn(bn: nn.Module, x: Tensor) -> Tensor:
    if isinstance(bn, nn.Identity):
        return x
    assert isinstance(bn, nn.modules.batchnorm._BatchNorm)
    assert bn.running_mean is not None and bn.running_var is not None
    shape = (-1,) + (1,) * (x.ndim - 1)
    mean, var, w, b = (t.view(shape) for t in (bn.running_mean, bn.running_var, bn.weight, bn.bias))
    return (x - mean) / (var + bn.eps).sqrt() * w + b


def flat(gate: Tensor, image: Tensor) -> Tensor:
    """A value a channel (C,), as it multiplies an image (C, H, W) or volume."""
    return gate.view(-1, *[1] * (image.ndim - 1))


def naive_se(m: SqueezeExcite, image: Tensor) -> dict[str, Tensor]:
    z = torch.stack([plane.sum() / plane.numel() for plane in image])
    return {"channel": flat(torch.sigmoid(naive_mlp(m, z)), image)}


def naive_channel(m: ChannelGate, image: Tensor) -> dict[str, Tensor]:
    avg = torch.stack([plane.sum() / plane.numel() for plane in image])
    peak = torch.stack([plane.flatten().sort().values[-1] for plane in image])
    summaries = [z for z, used in ((avg, m.average), (peak, m.maximum)) if used]
    return {"channel": flat(torch.sigmoid(sum(naive_mlp(m, z) for z in summaries)), image)}


def naive_spatial(m: SpatialGate, image: Tensor) -> dict[str, Tensor]:
    summaries = []
    if m.average:
        summaries.append(image.sum(0) / len(image))
    if m.maximum:
        summaries.append(image.sort(0).values[-1])
    if m.learned:
        summaries.append(sum(w * plane for w, plane in zip(m.pool.weight.flatten(), image, strict=True)))
    k, size = m.conv.kernel_size[0], image.shape[1:]
    padded = F.pad(torch.stack(summaries), (k // 2,) * 2 * len(size))
    logits = torch.empty(size)
    for place in itertools.product(*map(range, size)):
        window = (slice(None), *(slice(i, i + k) for i in place))
        logits[place] = (padded[window] * m.conv.weight[0]).sum()
    return {"spatial": torch.sigmoid(naive_bn(m.bn, logits[None]))}


def naive_cbam(m: CBAM, image: Tensor) -> dict[str, Tensor]:
    formulas = {"channel": naive_channel, "spatial": naive_spatial}
    gates, y = {}, image
    for name, gate in m.named_children():
        gates |= formulas[name](gate, image if m.parallel else y)
        y = y * gates[name] / (STARTS[name] if m.neutral else 1)
    return gates


def naive_bam(m: BAM, image: Tensor) -> dict[str, Tensor]:
    conv_nd = F.conv2d if image.ndim == 3 else F.conv3d
    parts = []
    if (c := m.channel) is not None:
        z = image.flatten(1).mean(1)
        hidden = naive_bn(c.bn, c.fc1.weight @ z + c.fc1.bias).clamp(min=0)
        parts.append(flat(naive_bn(c.end_bn, c.fc2.weight @ hidden + c.fc2.bias), image))
    if (s := m.spatial) is not None:
        y = image[None]
        for name, d in (("reduce", 0), ("conv1", 4), ("conv2", 4)):
            conv, bn = s.trunk.get_submodule(name), s.trunk.get_submodule(f"{name}_bn")
            y = conv_nd(y, conv.weight, conv.bias, padding=d, dilation=d or 1)
            y = naive_bn(bn, y[0])[None].clamp(min=0)
        parts.append(naive_bn(s.end_bn, conv_nd(y, s.project.weight, s.project.bias)[0]))
    joined = parts[0]
    if len(parts) == 2:
        joined = {"add": torch.add, "mul": torch.mul, "max": torch.maximum}[m.fusion](*parts)
    return {"joint": 1 + torch.sigmoid(joined)}


def naive_eca(m: ECA, image: Tensor) -> dict[str, Tensor]:
    k = m.conv.kernel_size[0]
    z = F.pad(image.mean((1, 2)), (k // 2, k // 2))
    gates = [torch.sigmoid((z[c : c + k] * m.conv.weight[0, 0]).sum()) for c in range(len(image))]
    return {"channel": flat(torch.stack(gates), image)}


def pointwise(conv: nn.Module, z: Tensor) -> Tensor:
    """A 1x1 convolution of one place's channels (C,)."""
    assert isinstance(conv, nn.Conv2d)
    y = conv.weight.flatten(1) @ z
    return y if conv.bias is None else y + conv.bias


def naive_coord(m: CoordAttention, image: Tensor) -> dict[str, Tensor]:
    _, height, width = image.shape
    places = [image[:, i].mean(1) for i in range(height)] + [image[:, :, j].mean(1) for j in range(width)]
    f = naive_bn(m.bn, torch.stack([pointwise(m.conv, z) for z in places], 1))
    f = f * (f + 3).clamp(0, 6) / 6
    rows = torch.stack([pointwise(m.rows, f[:, i]) for i in range(height)], 1)
    columns = torch.stack([pointwise(m.columns, f[:, height + j]) for j in range(width)], 1)
    return {"height": torch.sigmoid(rows)[:, :, None], "width": torch.sigmoid(columns)[:, None]}


def naive_scse(m: ScSE, image: Tensor) -> dict[str, Tensor]:
    channel = flat(torch.sigmoid(naive_mlp(m.channel, image.mean((1, 2)))), image)
    spatial = torch.empty(1, *image.shape[1:])
    for i, j in itertools.product(*map(range, image.shape[1:])):
        spatial[:, i, j] = torch.sigmoid(pointwise(m.spatial.conv, image[:, i, j]))
    if m.fusion == "mul":
        return {"channel": channel, "spatial": spatial}
    recalibrated = {"add": torch.add, "max": torch.maximum}[m.fusion](image * channel, image * spatial)
    return {"joint": recalibrated / image}


def naive_simam(m: SimAM, image: Tensor) -> dict[str, Tensor]:
    gates = []
    for plane in image:
        distance = (plane - plane.mean()) ** 2
        variance = distance.sum() / max(1, plane.numel() - 1)
        gates.append(torch.sigmoid(distance / (4 * (variance + 1e-4)) + 0.5))
    return {"joint": torch.stack(gates)}


def naive_triplet(m: TripletAttention, image: Tensor) -> dict[str, Tensor]:
    plane = naive_spatial(m.height_width, image)["spatial"]
    across = naive_spatial(m.channel_width, image.permute(1, 0, 2))["spatial"].permute(1, 0, 2)  # of (H, C, W)
    down = naive_spatial(m.height_channel, image.permute(2, 1, 0))["spatial"].permute(2, 1, 0)  # of (W, H, C)
    return {"joint": (plane + across + down) / 3}


def naive_upsample(z: Tensor, height: int, width: int) -> Tensor:
    """Bilinear, corners aligned: (H, W) -> (height, width)."""
    y = torch.empty(height, width)
    for i, j in itertools.product(range(height), range(width)):
        a, b = (p * (n - 1) / max(1, m - 1) for p, n, m in ((i, z.shape[0], height), (j, z.shape[1], width)))
        top, left = int(a), int(b)
        low, right = min(top + 1, z.shape[0] - 1), min(left + 1, z.shape[1] - 1)
        u, v = a - top, b - left
        y[i, j] = (1 - u) * ((1 - v) * z[top, left] + v * z[top, right]) + u * (
            (1 - v) * z[low, left] + v * z[low, right]
        )
    return y


def ha_spatial_logits(m: HASpatial, image: Tensor) -> Tensor:
    y = F.conv2d(image.mean(0)[None, None], m.conv1.weight, m.conv1.bias, stride=2, padding=1)[0]
    y = naive_upsample(naive_bn(m.bn1, y).clamp(min=0)[0], *image.shape[1:])
    return naive_bn(m.bn2, (m.conv2.weight[0, 0] * y + m.conv2.bias)[None]).clamp(min=0)


def ha_channel_logits(m: HAChannel, image: Tensor) -> Tensor:
    hidden = naive_bn(m.bn1, pointwise(m.conv1, image.mean((1, 2)))).clamp(min=0)
    return naive_bn(m.bn2, pointwise(m.conv2, hidden)).clamp(min=0)[:, None, None]


def naive_ha(m: SoftAttention, image: Tensor) -> dict[str, Tensor]:
    product = ha_spatial_logits(m.spatial, image) * ha_channel_logits(m.channel, image)
    joint = F.conv2d(product[None], m.conv.weight, m.conv.bias)[0]
    return {"joint": torch.sigmoid(naive_bn(m.bn, joint).clamp(min=0))}


def naive_crop(image: Tensor, across: float, down: float, regions: int, height: int, width: int) -> Tensor:
    """One region of (C, H, W), sampled at the size of the image, corners aligned, zero outside; then resized."""
    _, h, w = image.shape
    full = torch.zeros_like(image)
    for i, j in itertools.product(range(h), range(w)):
        v = ((2 * i / max(1, h - 1) - 1) / regions + down + 1) * (h - 1) / 2
        u = ((2 * j / max(1, w - 1) - 1) + across + 1) * (w - 1) / 2
        for y, x in itertools.product((math.floor(v), math.floor(v) + 1), (math.floor(u), math.floor(u) + 1)):
            if 0 <= y < h and 0 <= x < w:
                full[:, i, j] += (1 - abs(v - y)) * (1 - abs(u - x)) * image[:, y, x]
    return torch.stack([naive_upsample(plane, height, width) for plane in full])


FORMULAS: dict[str, Callable[..., dict[str, Tensor]]] = {
    "se": naive_se,
    "channel": naive_channel,
    "spatial": naive_spatial,
    "cbam": naive_cbam,
    "bam": naive_bam,
    "eca": naive_eca,
    "coord": naive_coord,
    "scse": naive_scse,
    "simam": naive_simam,
    "triplet": naive_triplet,
    "ha": naive_ha,
    "ha_spatial": lambda m, image: {"spatial": torch.sigmoid(ha_spatial_logits(m, image))},
    "ha_channel": lambda m, image: {"channel": torch.sigmoid(ha_channel_logits(m, image))},
}
"""The gates of one image as published, by the name of a build or by what stands in front of its first underscore."""

STARTS = {
    "se": 1 / 2,
    "channel": 1 / 2,
    "spatial": 1 / 2,
    "cbam": 1 / 2,  # each of its gates
    "bam": 3 / 2,
    "eca": 1 / 2,
    "coord": 1 / 2,  # each of its gates
    "scse": 1,  # the sum
    "scse_max": 1 / 2,
    "scse_mul": 1 / 2,  # each of its gates
    "triplet": 1 / 2,
    "ha": 3 / 4,
    "ha_spatial": 3 / 4,
    "ha_channel": 3 / 4,
}
"""By what a neutral gate is divided, by the same names."""

Entry = TypeVar("Entry")


def entry(table: dict[str, Entry], name: str) -> Entry:
    return table[name if name in table else name.split("_")[0].rstrip("37")]


def naive_gates(name: str, module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    formula, divisor = entry(FORMULAS, name), entry(STARTS, name) if module.neutral else 1
    images = [formula(module, image) for image in x]
    return {gate: torch.stack([gates[gate] for gates in images]) / divisor for gate in images[0]}


def naive(name: str, module: nn.Module, x: Tensor) -> Tensor:
    """What the module returns: `x` times its gates."""
    return math.prod(naive_gates(name, module, x).values(), start=x)
