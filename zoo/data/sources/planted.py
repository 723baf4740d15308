"""`planted`: drawn images of which it is known where the evidence is, so that they need no file."""

from zoo.data.images import Images
from zoo.data.planted import SHAPES, draw_planted
from zoo.data.sources.parts import Parts

COUNTS = {"train": 2000, "test": 400}
"""Images a part; the part's place in this table is the seed."""


def read_planted() -> Parts:
    """Small shapes in clutter, 32x32 pixels (zoo/data/planted.py)."""
    parts = {}
    for seed, (part, count) in enumerate(COUNTS.items()):
        drawn = draw_planted(count, seed)
        parts[part] = Images([each.image for each in drawn], [each.label for each in drawn])
    return Parts(parts, SHAPES, {part: f"{part} images, drawn apart" for part in COUNTS})
