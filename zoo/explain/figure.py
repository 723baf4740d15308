"""One figure a picture: the picture, the classes, Grad-CAM, the channel gates by stage, the spatial gates over it.

Colours tell apart without red and green: purple is less than at the start, orange is more, and where nothing is laid
over the picture the gate is what it was at the start.
"""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from zoo.explain.cam import INSTALL
from zoo.explain.picture import Picture
from zoo.explain.view import View, flat, is_constant

MORE_OR_LESS, HOW_MUCH, STAGES = colormaps["PuOr_r"], colormaps["viridis"], colormaps["cividis"]
COLUMNS, SIDE, SMALL = 4, 3.3, 2.7
"""Of the figure; of a panel, in inches, and of one on a narrow screen, so that its words are larger there."""
HEAD, MOST = 4, 6
"""Panels that every network has; maps over places beside each other, at most."""
MARGIN = 0.4
"""Of what the network did not see, shown beside what it saw: a share of that."""
NOT_FINITE = "not finite, as zoo verify would say"
SMALLEST = 0.01
"""Half the range of a legend, at least: a map that differs by less looks as plain as it is."""


def explain_figure(picture: Picture, views: Sequence[View], columns: int = COLUMNS) -> Figure:
    """The figure of one picture and one network, or two below each other; on a narrow screen in two `columns`."""
    grids = [grid for view in views for grid in _grids(view, columns)]
    heights = [rows for rows, _ in grids]
    side = SIDE if columns == COLUMNS else SMALL
    figure = Figure((columns * side, sum(heights) * side), layout="constrained")
    parts = figure.subfigures(len(grids), height_ratios=heights, squeeze=False)[:, 0]
    # Grids of their own, as one that both halves fit into has columns too narrow to be laid out.
    panels = (part.subplots(*grid, squeeze=False).ravel() for part, grid in zip(parts, grids, strict=True))
    for view in views:
        first, second, third, fourth = next(panels)
        _picture(first, picture, view.name)
        _classes(second, view)
        _cam(third, picture, view)
        _channels(fourth, view)
        if found := _with_places(view):
            below = next(panels)
            for panel, (path, maps) in zip(below, found.items(), strict=False):
                _places(panel, picture, path, flat(maps.places[0].float().cpu()), maps.places_constant)
            for panel in below[len(found) :]:
                panel.set_axis_off()
    return figure


def _grids(view: View, columns: int) -> list[tuple[int, int]]:
    """Rows and columns of the panels that every network has, and of its maps over places, in a row where they fit."""
    found = len(_with_places(view))
    across = min(max(columns, found), MOST) if columns == COLUMNS else columns
    return [(HEAD // columns, columns), *([(math.ceil(found / across), across)] if found else [])]


def _with_places(view: View) -> dict[str, Any]:
    return {path: maps for path, maps in view.stages.items() if maps.places is not None}


def _bare(panel: Axes, title: str) -> None:
    panel.set_title(title, fontsize=10)
    panel.set_axis_off()


def _said(panel: Axes, title: str, words: str) -> None:
    """A panel that says why it is empty."""
    _bare(panel, title)
    panel.text(0.5, 0.5, textwrap.fill(words, 30), ha="center", va="center", transform=panel.transAxes, fontsize=9)


def _picture(panel: Axes, picture: Picture, name: str) -> None:
    """The picture, with a frame around what the network saw of it."""
    left, top, right, bottom = picture.box
    _bare(panel, f"{textwrap.fill(name, 36, break_on_hyphens=False)}\n{picture.said}")
    panel.imshow(picture.shown)
    for colour, line in (("white", "--"), ("black", ":")):  # to be seen on any picture
        frame = Rectangle((left, top), right - left, bottom - top, fill=False, linewidth=1.5)
        frame.set(edgecolor=colour, linestyle=line)
        panel.add_patch(frame)


def _classes(panel: Axes, view: View) -> None:
    names = [textwrap.shorten(name, 26, placeholder="...") for name, _ in view.classes]
    shares = [100 * share for _, share in view.classes]
    places = range(len(names))
    panel.barh(places, np.nan_to_num(shares), color="#c9d6ea")
    panel.set(xlim=(0, 100), xlabel="probability, %", yticks=[])
    panel.invert_yaxis()
    for place, name, share in zip(places, names, shares, strict=True):
        panel.text(2, place, f"{name}  {share:.1f} %", va="center", fontsize=9)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.set_title("classes", fontsize=10)


def _cam(panel: Axes, picture: Picture, view: View) -> None:
    if view.cam is None:
        _said(panel, "Grad-CAM", f"takes torchcam: {INSTALL}")
        return
    values = flat(view.cam.float().cpu())
    title = f"Grad-CAM: {textwrap.shorten(view.classes[0][0], 24, placeholder='...')}"
    if not (values.isfinite().all() and math.isfinite(view.classes[0][1])):  # of what is not, torchcam makes 0
        _said(panel, title, NOT_FINITE)
        return
    if not values.max() > 0:
        _said(panel, title, "no place speaks for this class")
        return
    _lay_over(panel, picture, HOW_MUCH(_fine(values)), _fine(values) * 0.75)
    _bare(panel, f"{title}\nevidence, 0 to its largest value")


def _channels(panel: Axes, view: View) -> None:
    """The gate of each channel, largest first, a line a stage."""
    found = {path: maps for path, maps in view.stages.items() if maps.channels is not None}
    if not found:
        _said(panel, "channel gates", "it has none" if view.maps else "a network without attention")
        return
    for k, (path, maps) in enumerate(found.items()):
        assert maps.channels is not None
        values = np.sort(maps.channels[0].float().cpu().numpy())[::-1]
        share = 100 * (np.arange(len(values)) + 0.5) / len(values)
        still = " (constant)" if is_constant(maps.channels[0], maps.channels_constant) else ""
        panel.plot(share, values, color=STAGES(0.9 * k / max(1, len(found) - 1)), label=path + still)
    starts = {maps.channels_constant for maps in found.values()}
    for start in starts - {math.nan}:
        panel.axhline(start, color="#888888", linewidth=0.8, linestyle=":")
    panel.set_xlabel("share of channels, largest first, %", fontsize=9)
    panel.legend(fontsize=7, frameon=False)
    panel.tick_params(labelsize=8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_title("channel gates (dotted: start)", fontsize=10)


def _places(panel: Axes, picture: Picture, path: str, values: Tensor, start: float) -> None:
    """The spatial gate over the picture, in its own range, which the legend says."""
    size = "x".join(map(str, values.shape))
    if not values.isfinite().all():
        _said(panel, f"{path}, {size}", NOT_FINITE)
        return
    centre = start if start == start else float(values.mean())
    half = max(float((values - centre).abs().max()), SMALLEST * abs(centre))
    norm = Normalize(centre - half, centre + half)
    fine = _fine(values)
    _lay_over(panel, picture, MORE_OR_LESS(norm(fine)), np.abs(fine - centre) / half * 0.8)
    spread = f"{float(values.min()):.3g} to {float(values.max()):.3g}"
    _bare(panel, f"{path}, {size}\n{spread}{', CONSTANT' if is_constant(values, start) else ''}")
    if is_constant(values, start):
        panel.text(
            0.5,
            0.5,
            "constant",
            ha="center",
            va="center",
            transform=panel.transAxes,
            fontsize=14,
            color="white",
            bbox={"facecolor": "#333333", "edgecolor": "none", "alpha": 0.8},
        )
    part: Any = panel.get_figure(root=False)
    bar = part.colorbar(ScalarMappable(norm, MORE_OR_LESS), ax=panel, shrink=0.75, ticks=[norm.vmin, centre, norm.vmax])
    bar.ax.set_yticklabels([f"{tick:.3g}" for tick in (norm.vmin, centre, norm.vmax)], fontsize=8)


def _fine(values: Tensor) -> np.ndarray:
    """A map between its places by linear interpolation, so that a map of 7x7 is no patchwork."""
    scale = max(1, round(224 / max(values.shape)))
    size = [side * scale for side in values.shape]
    return F.interpolate(values[None, None], size=size, mode="bilinear", align_corners=False)[0, 0].numpy()


def _lay_over(panel: Axes, picture: Picture, colours: np.ndarray, strength: np.ndarray) -> None:
    """Colours over the picture in grey, where the network saw it; what it did not see is pale."""
    left, top, right, bottom = picture.box
    grey = picture.shown.mean(2) / 255
    height, width = grey.shape
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    seen = (columns >= left) & (columns <= right) & (rows >= top) & (rows <= bottom)
    panel.imshow(np.where(seen, grey, 0.7 + 0.3 * grey), cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
    panel.imshow(np.dstack([colours[..., :3], np.clip(strength, 0, 1)]), extent=(left, right, bottom, top))
    aside, above = MARGIN * (right - left), MARGIN * (bottom - top)
    panel.set(xlim=(max(0, left - aside), min(width, right + aside)))
    panel.set(ylim=(min(height, bottom + above), max(0, top - above)))
