"""The attentions of the catalogue: what the prefix of a model's name stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.attention import (
    BAM,
    CBAM,
    ECA,
    Attention,
    CoordAttention,
    ScSE,
    SimAM,
    SoftAttention,
    SpatialGate,
    SqueezeExcite,
    TripletAttention,
)


@dataclass(frozen=True)
class AttentionRow:
    """One attention, and how the catalogue uses it."""

    gate: type[Attention]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the gate that make this row what it is, not open to `attn_kwargs`."""
    where: str = "block"
    """In which places of a network: "block", each of its blocks, or "strides", its last ones. Keys of
    `Backbone.placements`."""
    in_volumes: Mapping[str, Any] = field(default_factory=dict)
    """Defaults of the gate's arguments in networks for volumes, where they differ."""
    neutral: bool = True
    """Whether its gates start at one in the catalogue, unless `attn_kwargs` says otherwise."""
    exact: bool = True
    """Whether plain weights can start a model with this gate exactly: the gate can be made constant."""


ATTENTIONS = {
    "se": AttentionRow(SqueezeExcite),
    "cbam": AttentionRow(CBAM, in_volumes={"reduction": 8, "kernel_size": 3}),
    "bam": AttentionRow(BAM, where="strides"),
    "bam_mul": AttentionRow(BAM, {"fuse": "mul"}, where="strides"),
    "spatial": AttentionRow(SpatialGate),
    "ha": AttentionRow(SoftAttention),
    "eca": AttentionRow(ECA),
    "coord": AttentionRow(CoordAttention),
    "scse": AttentionRow(ScSE),
    "simam": AttentionRow(SimAM, neutral=False, exact=False),
    "triplet": AttentionRow(TripletAttention),
}
