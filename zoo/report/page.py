"""The report of a run: one page that needs no network and no script, and pictures beside it.

    RUN/report.html             all there is to know of a run
    RUN/results.png             the curves
    RUN/confusion_matrix.png    true classes and answers
    RUN/val_batch0_pred.jpg     the first held-out images with the answers
    RUN/train_batch0.jpg        the first images that the network was shown; training writes it

The first two lie in RUN/model too, for the card.
"""

import csv
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.sheet import sheet
from zoo.files import write_whole
from zoo.report import figures
from zoo.report.look import Look
from zoo.report.mistakes import Captioned, first_answers, worst_mistakes
from zoo.report.style import document, figure, scrolling, table
from zoo.training.run_directory import kept_words, read_facts

WORST = 10
"""Classes that the table of the worst ones has."""


def write_report(run: Path, look: Look | None = None, why_not: str = "") -> Path:
    """Write RUN/report.html of a run that is complete, and the pictures beside it, and return it. Raises OSError.

    Without a `look` at what it held out, the page says `why_not`, and has what the run wrote down.
    """
    facts, history = read_facts(run), read_history(run)
    kept = int(facts["result"].get("kept_epoch", len(history)))
    pictures = {run / "results.png": figures.png(figures.results(history, kept))}
    if look:
        pictures[run / "confusion_matrix.png"] = figures.png(figures.confusion(look.confusion, look.classes))
    pictures |= {run / "model" / path.name: held for path, held in pictures.items()}
    if look:
        shown, captions = zip(*first_answers(look), strict=True)
        pictures[run / "val_batch0_pred.jpg"] = figures.jpeg(sheet(np.stack(shown), captions))
    for path, held in pictures.items():
        write_whole(path, lambda beside, held=held: beside.write_bytes(held))
    page = "\n".join(_sections(run, facts, history, kept, look, why_not))
    text = document(f"{facts['recipe']['model']} on {facts['recipe']['data']}", page)
    write_whole(run / "report.html", lambda beside: beside.write_text(text, encoding="utf-8"))
    return run / "report.html"


def read_history(run: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _sections(
    run: Path,
    facts: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    kept: int,
    look: Look | None,
    why_not: str,
) -> Iterator[str]:
    """The page from its first line to its last."""
    recipe, result = facts["recipe"], facts["result"]
    yield _head(recipe, result, history)
    if gates := facts.get("gates"):
        yield f'<p class="said">{html.escape(gates["sentence"])}</p>'
    yield "<h2>Training</h2><div class=figures>"
    yield figure(figures.svg(figures.accuracy_curve(history, kept), "accuracy by epoch"))
    yield figure(figures.svg(figures.loss_curve(history, kept), "loss by epoch"))
    yield "</div>"
    yield "<details><summary>Every epoch</summary>" + scrolling(_epochs(history), "every epoch") + "</details>"
    if look:
        yield from _what_it_answers(look)
        yield from _what_attention_does(look)
    elif why_not:
        yield f"<h2>Answers</h2><p>What the run held out was not looked at again: {html.escape(why_not)}.</p>"
    if (run / "train_batch0.jpg").is_file():
        yield "<h2>A training batch, as the network saw it</h2>"
        with Image.open(run / "train_batch0.jpg") as picture:
            yield figure(figures.embedded(picture, "the first training images"), "of the first update")
    yield _speed(result, history)
    yield "<h2>Recipe</h2>" + scrolling(f"<pre>{html.escape((run / 'recipe.toml').read_text('utf-8'))}</pre>", "recipe")
    yield _environment(result)
    yield _use(run)


def _head(recipe: Mapping[str, Any], result: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    measured_on = f"n = {result['n']}: {html.escape(result['split'])}"
    seconds = sum(row["seconds"] for row in history)
    return (
        f"<h1>{html.escape(recipe['model'])} on {html.escape(recipe['data'])}</h1>"
        f'<p><span class="big">{result["top1"]:.2f} %</span> top-1 on what was held out ({measured_on})\n'
        f"after {len(history)} epochs and {seconds:.0f} seconds; kept: {html.escape(kept_words(result, recipe))}.</p>"
    )


def _epochs(history: Sequence[Mapping[str, float]]) -> str:
    heads = [name.replace("_", " ") for name in history[0]]
    return table(heads, [[f"{value:.4g}" for value in row.values()] for row in history])


def _what_it_answers(look: Look) -> Iterator[str]:
    part = f", {look.n} of {look.whole} of them, evenly spread" if look.n < look.whole else ""
    yield f"<h2>Answers</h2><p>On {look.n} images: {html.escape(look.words)}{part}.</p><div class=figures>"
    yield figure(figures.svg(figures.confusion(look.confusion, look.classes), "confusion matrix"))
    hit = (look.answers == look.labels).numpy()
    yield figure(figures.svg(figures.calibration(look.confidence.numpy(), hit), "calibration"))
    yield "</div><h3>Worst classes</h3>" + scrolling(_worst_classes(look), "worst classes")
    yield "<h3>Held-out images</h3>"
    yield _pictures(first_answers(look))
    yield "<h3>Most confident mistakes</h3>"
    wrong = worst_mistakes(look)
    if look.gates and len(wrong) > 1:
        yield "<p>Over the right one of each pair: orange is weighed more than at the start, purple less.</p>"
    yield _pictures(wrong) if wrong else "<p>None: every answer is right.</p>"


def _pictures(captioned: Captioned) -> str:
    """Each with its words below, which stay legible however narrow the page is."""
    held = [(figures.embedded(Image.fromarray(pixels), words), words) for pixels, words in captioned]
    return f'<div class="pictures">{"".join(figure(picture, words) for picture, words in held)}</div>'


def _worst_classes(look: Look) -> str:
    counts, rows = look.confusion, []
    for k, name in enumerate(look.classes):
        of_class = int(counts[k].sum())
        if of_class:
            others = counts[k].copy()
            others[k] = 0
            taken = f"{look.classes[int(others.argmax())]} ({int(others.max())})" if others.any() else "none"
            rows.append((counts[k, k] / of_class, [name, str(of_class), f"{100 * counts[k, k] / of_class:.1f}", taken]))
    rows.sort(key=lambda row: row[0])
    return table(["class", "images", "right, %", "mostly taken for"], [cells for _, cells in rows[:WORST]])


def _what_attention_does(look: Look) -> Iterator[str]:
    yield "<h2>Attention</h2>"
    report = look.gates
    if report is None:
        yield "<p>This network has no attention of the zoo.</p>"
        return
    yield f"<p>{html.escape(report.sentence)}</p>"
    words = {"all": "all at their averages", "channel": "channel gates alone at their averages"}
    words |= {"spatial": "spatial gates alone at their averages", "start": "all at what they start from"}
    rows = [[words[way], str(fixed.changed), f"{fixed.top1:.2f}"] for way, fixed in report.fixed.items()]
    yield scrolling(table(["gates", f"answers changed, of {report.n}", "top-1, %"], rows), "fixed gates")
    yield "<div class=figures>" + figure(figures.svg(figures.gates(report), "gates")) + "</div>"
    heads = ["gate", "mean", "start", "from start", "between images", "within"]
    cells = [
        [name, *(f"{v:.4g}" for v in (g.mean, g.start, g.deviation, g.between_images, g.within))]
        for name, g in report.gates.items()
    ]
    yield f"<details><summary>Every gate</summary>{scrolling(table(heads, cells), 'every gate')}</details>"


def _speed(result: Mapping[str, Any], history: Sequence[Mapping[str, float]]) -> str:
    rates = sorted(row["images_per_second"] for row in history)
    rows = [
        ["training images a second, median of epochs", f"{rates[len(rates) // 2]:.0f}"],
        ["seconds an epoch, with evaluation", f"{sum(row['seconds'] for row in history) / len(history):.1f}"],
        ["largest memory, MiB", f"{max(row['peak_memory_mib'] for row in history):.0f}"],
    ]
    return "<h2>Speed and memory</h2>" + scrolling(table(["", str(result.get("hardware", ""))], rows), "speed")


def _environment(result: Mapping[str, Any]) -> str:
    rows = [[key, str(result[key])] for key in ("hardware", "torch", "timm", "date", "seed") if key in result]
    return "<h2>Environment</h2>" + scrolling(table(["", ""], rows), "environment")


def _use(run: Path) -> str:
    code = f"""import timm, zoo
model = timm.create_model("local-dir:{run / "model"}", pretrained=True)

zoo predict {run} IMAGES
zoo explain {run} IMAGES --out explained
zoo publish {run} --repo ORG/NAME --license ID --dry-run"""
    return "<h2>Load, look, publish</h2>" + scrolling(f"<pre>{html.escape(code)}</pre>", "how to use it")
