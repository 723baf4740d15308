"""Attention modules in plain PyTorch: a gate takes (B, C, H, W) and returns the same shape, weighted."""

from zoo.attention.bam import BAM
from zoo.attention.cbam import CBAM, ChannelGate, SpatialGate
from zoo.attention.gate import Gate
from zoo.attention.se import SqueezeExcite

__all__ = ["BAM", "CBAM", "ChannelGate", "Gate", "SpatialGate", "SqueezeExcite"]
