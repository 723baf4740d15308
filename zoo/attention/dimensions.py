"""What differs between sequences (B, C, L), maps (B, C, H, W) and volumes (B, C, D, H, W): `dims` 1, 2 and 3."""

from torch import nn

from zoo.attention.norms import GateBatchNorm1d, GateBatchNorm2d, GateBatchNorm3d

CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORMS = {1: GateBatchNorm1d, 2: GateBatchNorm2d, 3: GateBatchNorm3d}


def require_dims(dims: int) -> int:
    """Raises ValueError unless `dims` is 1, 2 or 3; returns it."""
    if dims not in CONVS:
        raise ValueError(
            f"dims must be 1 for sequences (B, C, L), 2 for maps (B, C, H, W) or 3 for volumes (B, C, D, H, W), "
            f"not {dims!r}"
        )
    return dims


def pooled_axes(dims: int, keep_depth: bool) -> list[int]:
    """The axes, counted from the last, that a channel gate pools over: all of space, or each slice of a volume apart.

    Raises ValueError for other `dims`, and for `keep_depth` without a depth.
    """
    if keep_depth and require_dims(dims) != 3:
        raise ValueError("keep_depth=True gates each slice of a volume (B, C, D, H, W) apart, so it needs dims=3")
    return list(range(-2 if keep_depth else -require_dims(dims), 0))
