"""Attention modules in plain PyTorch: each takes (B, C, H, W) and returns the same shape, weighed."""

from zoo.attention.bam import BAM
from zoo.attention.cbam import CBAM, ChannelGate, SpatialGate
from zoo.attention.contract import Attention
from zoo.attention.coord import CoordAttention
from zoo.attention.eca import ECA
from zoo.attention.gate import Gate
from zoo.attention.harmonious import HAChannel, HardAttention, HarmoniousAttention, HASpatial, SoftAttention
from zoo.attention.kernels import kernels
from zoo.attention.scse import ScSE
from zoo.attention.se import SqueezeExcite
from zoo.attention.simam import SimAM
from zoo.attention.triplet import TripletAttention

__all__ = [
    "BAM",
    "CBAM",
    "ECA",
    "Attention",
    "ChannelGate",
    "CoordAttention",
    "Gate",
    "HAChannel",
    "HASpatial",
    "HardAttention",
    "HarmoniousAttention",
    "ScSE",
    "SimAM",
    "SoftAttention",
    "SpatialGate",
    "SqueezeExcite",
    "TripletAttention",
    "kernels",
]
