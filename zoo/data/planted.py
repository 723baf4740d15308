"""Images of which it is known where the evidence is: a small shape in clutter, which alone decides the class.

Everything else is drawn alike for all classes: a ground of soft colours, short strokes and dots. So a network that
knows the class has looked at the shape, and a map that claims to show where it looked can be held against the place.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("cross", "ring", "square", "triangle")
"""The classes."""
SIDE, RADIUS = 32, 4
"""Of an image, and of a shape, in pixels; a shape is 9 pixels wide."""
STROKES, DOTS = 5, 8
"""Of clutter in each image."""


@dataclass(frozen=True)
class Planted:
    """One image and what is known of it."""

    image: Image.Image
    label: int
    """Of SHAPES."""
    box: tuple[int, int, int, int]
    """Where the shape is: left, top, right and bottom, in pixels."""


def draw_planted(count: int, seed: int) -> list[Planted]:
    """Images with as many of each shape as of any other, the same for the same seed."""
    random = np.random.default_rng(seed)
    return [_draw(k % len(SHAPES), random) for k in range(count)]


def _draw(label: int, random: Any) -> Planted:
    ground = Image.fromarray(random.integers(40, 200, (4, 4, 3), dtype=np.uint8))
    image = ground.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(STROKES):
        x, y, angle = *random.uniform(0, SIDE, 2), random.uniform(0, 2 * np.pi)
        across, down = 6 * np.cos(angle), 6 * np.sin(angle)
        pen.line((x, y, x + across, y + down), fill=_colour(random))
    for x, y in random.uniform(0, SIDE, (DOTS, 2)):
        pen.ellipse((x - 1, y - 1, x + 1, y + 1), fill=_colour(random))
    x, y = (int(place) for place in random.integers(RADIUS + 1, SIDE - RADIUS - 1, 2))
    left, top, right, bottom = box = (x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)
    colour = _colour(random)
    if label == SHAPES.index("cross"):
        pen.line((left, top, right, bottom), fill=colour, width=2)
        pen.line((left, bottom, right, top), fill=colour, width=2)
    elif label == SHAPES.index("ring"):
        pen.ellipse(box, outline=colour, width=2)
    elif label == SHAPES.index("square"):
        pen.rectangle(box, outline=colour, width=2)
    else:
        pen.polygon(((x, top), (right, bottom), (left, bottom)), outline=colour, width=2)
    return Planted(image, label, box)


def _colour(random: Any) -> tuple[int, ...]:
    """Bright or dark, so that it can be seen on the ground."""
    return tuple(int(each) for each in random.integers(0, 60, 3) + (190 if random.random() < 0.5 else 0))
