"""The figures of a report, by matplotlib: small, so that their words can be read on a telephone.

Colours are Okabe and Ito's (2008), safe for the colour-blind; lines differ in their dashes, too.
"""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from zoo.explain.gate_report import GateReport

OURS, OTHER, SOFT = "#0072b2", "#d55e00", "#9aa0a6"
WIDTH = 4.2
"""Inches of a figure: so its letters of 9 points are 11 pixels high where 360 pixels are wide."""
NAMED, COUNTED = 30, 12
"""Classes up to which the confusion matrix names them, and writes counts into its cells."""
STYLE: dict[Any, Any] = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none"}
BINS = 10


def svg(figure: Figure, words: str) -> str:
    """A figure as a piece of a page, with what it shows in words for who cannot see it."""
    text = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": words}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    whole = text.getvalue()
    inside = re.sub(r"<metadata>.*?</metadata>", "", whole[whole.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"\W", "", words)[:12]  # names are of this figure alone, where a page has several
    inside = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{prefix}-", inside)
    inside = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        r'<svg viewBox="\1" xmlns="http://www.w3.org/2000/svg" '
        rf'xmlns:xlink="http://www.w3.org/1999/xlink" role="img" aria-label="{words}">',
        inside,
        count=1,
    )
    return inside


def png(figure: Figure, dots: int = 150) -> bytes:
    """A figure as a file of its own."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=dots)
    return held.getvalue()


SMALL = 64
"""Pixels of a side up to which a picture is a PNG, since JPEG blurs colours over 8 or 16."""


def jpeg(picture: Image.Image) -> bytes:
    """A photograph or a sheet of them as a file."""
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=90)
    return held.getvalue()


def embedded(picture: Image.Image, words: str) -> str:
    """A picture within a page."""
    held, kind = io.BytesIO(), "PNG" if max(picture.size) <= SMALL else "JPEG"
    picture.save(held, kind)
    code = base64.b64encode(held.getvalue()).decode()
    return f'<img alt="{html.escape(words)}" src="data:image/{kind.lower()};base64,{code}">'


def _figure(height: float, columns: int = 1, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def accuracy_curve(history: Sequence[Mapping[str, float]], kept: int) -> Figure:
    """Held-out accuracy by epoch, the kept one marked."""
    figure, (panel,) = _figure(2.9)
    _accuracy(panel, history, kept)
    return figure


def loss_curve(history: Sequence[Mapping[str, float]], kept: int) -> Figure:
    """Losses by epoch, the kept one marked."""
    figure, (panel,) = _figure(2.9)
    _losses(panel, history, kept)
    return figure


def results(history: Sequence[Mapping[str, float]], kept: int) -> Figure:
    """Both beside each other, for results.png."""
    figure, (left, right) = _figure(2.9, 2, 2 * WIDTH)
    _accuracy(left, history, kept)
    _losses(right, history, kept)
    return figure


def _accuracy(panel: Axes, history: Sequence[Mapping[str, float]], kept: int) -> None:
    epochs = [row["epoch"] for row in history]
    panel.plot(epochs, [row["val_top1"] for row in history], color=OURS, marker=".", label="top-1")
    panel.plot(epochs, [row["val_top5"] for row in history], color=SOFT, linestyle="--", label="top-5")
    _finish_curve(panel, kept, "held-out accuracy, %")


def _losses(panel: Axes, history: Sequence[Mapping[str, float]], kept: int) -> None:
    epochs = [row["epoch"] for row in history]
    panel.plot(epochs, [row["val_loss"] for row in history], color=OTHER, marker=".", label="held out")
    panel.plot(epochs, [row["train_loss"] for row in history], color=SOFT, linestyle="--", label="training")
    _finish_curve(panel, kept, "loss, nats")


def _finish_curve(panel: Axes, kept: int, title: str) -> None:
    panel.axvline(kept, color="#444444", linewidth=0.8, linestyle=":", label=f"kept: epoch {kept}")
    panel.set(title=title, xlabel="epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False, fontsize=8)


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Rows are true classes, columns answers, a row's share in colour."""
    figure, (panel,) = _figure(WIDTH)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    shown = panel.imshow(100 * shares, cmap="cividis", vmin=0, vmax=100, aspect="equal")
    if len(classes) <= NAMED:
        names = [name if len(name) <= 14 else name[:13] + "..." for name in classes]
        size = 8 if len(classes) <= 15 else 6
        panel.set_xticks(range(len(names)), names, rotation=90, fontsize=size, parse_math=False)  # names may have a $
        panel.set_yticks(range(len(names)), names, fontsize=size, parse_math=False)
    if len(classes) <= COUNTED:
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "black" if shares[row, column] > 0.5 else "white"
            panel.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=colour)
    panel.set(xlabel="answer", ylabel="true class")
    panel.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=panel, shrink=0.6, location="top", aspect=40)
    bar.set_label("% of the true class")
    return figure


def calibration(confidence: np.ndarray, hit: np.ndarray) -> Figure:
    """How often an answer of some confidence is right."""
    figure, (panel,) = _figure(2.9)
    which = np.minimum((confidence * BINS).astype(int), BINS - 1)
    bins = [k for k in range(BINS) if (which == k).any()]
    right = [100 * hit[which == k].mean() for k in bins]
    panel.plot([0, 100], [0, 100], color=SOFT, linestyle="--", label="as confident as right")
    panel.bar([100 * (k + 0.5) / BINS for k in bins], right, width=90 / BINS, color=OURS)
    for k in bins:
        count = str((which == k).sum())
        panel.text(100 * (k + 0.5) / BINS, 2, count, ha="center", fontsize=8, color="white", fontweight="bold")
    panel.set(
        xlim=(0, 100),
        ylim=(0, 105),
        xlabel="confidence, %",
        ylabel="right, %",
        title="calibration (counts in the bars)",
    )
    panel.legend(frameon=False, fontsize=8, loc="upper left")
    return figure


def gates(report: GateReport) -> Figure:
    """How the gates differ between images, a line a kind of gate, from the first attention to the last."""
    figure, (panel,) = _figure(2.9)
    kinds: dict[str, list[float]] = {}
    for name, gate in report.gates.items():
        kinds.setdefault(name.rpartition(".")[2], []).append(gate.between_images)
    for (kind, values), colour, line in zip(kinds.items(), (OURS, OTHER), ("-", "--"), strict=False):
        panel.plot(range(1, len(values) + 1), values, color=colour, linestyle=line, marker=".", label=kind)
    panel.set_ylim(bottom=0)
    panel.set(title="how gates differ between images", xlabel="attention, first to last")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False, fontsize=8)
    return figure


def seeds(curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> Figure:
    """Held-out accuracy of several runs, a colour a model."""
    figure, (panel,) = _figure(2.9)
    for (model, runs), colour in zip(
        curves.items(), (OURS, OTHER, "#009e73", "#cc79a7", "#56b4e9", "#e69f00") * 9, strict=False
    ):
        for k, history in enumerate(runs):
            epochs, accuracy = [row["epoch"] for row in history], [row["val_top1"] for row in history]
            panel.plot(epochs, accuracy, color=colour, linewidth=1, label=None if k else model)
    panel.set(title="held-out top-1, %, a line a run", xlabel="epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(frameon=False, fontsize=8)
    return figure
