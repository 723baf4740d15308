"""The most confident mistakes, each as a picture beside what the attention did to it."""

import numpy as np
from matplotlib import colormaps

from zoo.report.look import Look

MORE_OR_LESS = colormaps["PuOr_r"]
SHOWN = 8


Captioned = list[tuple[np.ndarray, str]]
"""Pictures (H, W, 3), each with its words."""


def first_answers(look: Look, count: int = 16) -> Captioned:
    """The first held-out images, each with the answer and, where it is another, the truth."""
    chosen = list(range(min(count, look.n)))
    return list(zip(look.shown(chosen), [_caption(look, k) for k in chosen], strict=True))


def worst_mistakes(look: Look) -> Captioned:
    """Wrong answers, the most confident first: the picture, and after it the same below its attention's map."""
    chosen = look.worst_mistakes(SHOWN)
    if not chosen:
        return []
    pictures, maps = look.shown(chosen), look.attention(chosen)
    found: Captioned = []
    for place, k in enumerate(chosen):
        found.append((pictures[place], _caption(look, k)))
        if maps is not None:
            half = max(float(np.abs(maps[place] - 1).max()), 0.01)
            found.append((laid_over(pictures[place], maps[place], half), f"attention, 1 ± {half:.2g}"))
    return found


def laid_over(picture: np.ndarray, values: np.ndarray, half: float) -> np.ndarray:
    """A picture (H, W, 3) in grey below a map (H, W): orange above 1, purple below it, nothing where it is 1."""
    grey = np.repeat(picture.mean(2, keepdims=True), 3, 2)
    colours = 255 * MORE_OR_LESS(0.5 + (values - 1) / half / 2)[..., :3]
    strength = 0.8 * np.clip(np.abs(values - 1) / half, 0, 1)[..., None]
    return (grey * (1 - strength) + colours * strength).round().astype(np.uint8)


def _caption(look: Look, k: int) -> str:
    answer, truth = look.classes[int(look.answers[k])], look.classes[int(look.labels[k])]
    sure = f"{100 * float(look.confidence[k]):.0f} %"
    return f"{answer}, {sure}" if answer == truth else f"{answer}, {sure}; not {truth}"
