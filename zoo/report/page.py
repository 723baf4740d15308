"""The report of a run: a page with its result and its curves, and no script in it."""

import csv
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.files import write_whole
from zoo.training.run_directory import kept_words

WIDTH, HEIGHT, MARGIN = 640, 240, 56
COLOURS = {"train loss": "#8a8f98", "held-out loss": "#c2410c", "top-1": "#1d4ed8", "top-5": "#7c9cf0"}

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #1c1e21; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } td, th { padding: .1rem .8rem .1rem 0; }
td, th { text-align: right; vertical-align: bottom; } pre { background: #f4f5f7; padding: .8rem; overflow-x: auto; }
.big { font-size: 2rem; font-weight: 600; } figcaption { color: #5b6068; } figure { margin: 0; }
"""


def write_report(directory: Path) -> Path:
    """Write RUN/report.html of a run that is complete, and return it. Raises OSError."""
    facts = json.loads((directory / "model" / "config.json").read_text(encoding="utf-8"))["zoo"]
    recipe = (directory / "recipe.toml").read_text(encoding="utf-8")
    with (directory / "metrics.csv").open(newline="", encoding="utf-8") as file:
        history = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    title = f"{facts['recipe']['model']} on {facts['recipe']['data']}"
    page = report_page(title, facts["result"], kept_words(facts["result"], facts["recipe"]), history, recipe)
    path = directory / "report.html"
    write_whole(path, lambda beside: beside.write_text(page, encoding="utf-8"))
    return path


def report_page(
    title: str, result: Mapping[str, Any], kept: str, history: Sequence[Mapping[str, float]], recipe: str
) -> str:
    """The page: `result` as in config.json, which epoch was `kept`, `history` as in metrics.csv, `recipe` as TOML."""
    losses = {"train loss": [e["train_loss"] for e in history], "held-out loss": [e["val_loss"] for e in history]}
    accuracies = {"top-1": [e["val_top1"] for e in history], "top-5": [e["val_top5"] for e in history]}
    heads = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in history[0])
    rows = "".join(f"<tr>{''.join(f'<td>{value:.4g}</td>' for value in epoch.values())}</tr>" for epoch in history)
    title = html.escape(title)
    measured_on = f"n = {result['n']}: {html.escape(result['split'])}"
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{STYLE}</style>
<h1>{title}</h1>
<p><span class="big">{result["top1"]:.2f} %</span> top-1 on what was held out ({measured_on})
after {len(history)} epochs and {sum(e["seconds"] for e in history):.0f} seconds; kept: {html.escape(kept)}.</p>
<h2>Accuracy, percent</h2>{_plot(accuracies)}
<h2>Loss, nats</h2>{_plot(losses)}
<h2>Epochs</h2><table><tr>{heads}</tr>{rows}</table>
<h2>Recipe</h2><pre>{html.escape(recipe)}</pre>
</html>
"""


def _plot(series: Mapping[str, Sequence[float]]) -> str:
    """A line chart as SVG, epochs from left to right."""
    values = [value for line in series.values() for value in line]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    count = max(len(line) for line in series.values())

    def x(index: int) -> float:
        return MARGIN + (WIDTH - 2 * MARGIN) * (index / max(1, count - 1))

    def y(value: float) -> float:
        return HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * ((value - low) / span)

    parts = [
        f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="#e1e4e8"/>'
        f'<text x="{MARGIN - 6}" y="{y(v) + 4:.1f}" text-anchor="end" font-size="12" fill="#5b6068">{v:.3g}</text>'
        for v in (low, low + span / 2, low + span)
    ]
    for i, (name, line) in enumerate(series.items()):
        points = " ".join(f"{x(k):.1f},{y(v):.1f}" for k, v in enumerate(line))
        colour = COLOURS[name]
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{MARGIN + 130 * i}" y="20" font-size="13" fill="{colour}">{name}</text>')
    for index in {0, count - 1}:
        parts.append(
            f'<text x="{x(index):.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle" font-size="12" fill="#5b6068">'
            f"epoch {index + 1}</text>"
        )
    names = " and ".join(series)
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{names}">{"".join(parts)}</svg></figure>'
    )
