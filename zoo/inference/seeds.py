"""Figures of several seeds: how they spread, and whether two sets of them differ."""

from collections.abc import Collection
from statistics import mean, stdev


def spread(values: Collection[float]) -> str:
    """`MEAN ± STANDARD DEVIATION`, as all tables here have it; one value by itself."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{mean(values):.2f}"


def difference(ours: Collection[float], plain: Collection[float]) -> tuple[float, bool]:
    """Difference of the means, and whether it is lost in the spread: below the larger standard deviation of the two.

    One plain run has no spread to be lost in. `ours` has two values at least.
    """
    gain = mean(ours) - mean(plain)
    return gain, len(plain) > 1 and abs(gain) < max(stdev(ours), stdev(plain))
