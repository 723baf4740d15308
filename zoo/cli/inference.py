"""Verbs that use a trained model."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from zoo.errors import UserError
from zoo.printable import printable, printable_json


@click.command("eval")
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("--part", type=click.Choice(("train", "val", "test", "all")), help="Another part of the data.")
@click.option("--by-order", is_flag=True, help="Take class i of the data for the model's, whatever they are called.")
@click.option("--json", "as_json", is_flag=True, help="All figures, per class too, as JSON.")
@click.option(
    "--csv", type=click.Path(path_type=Path), metavar="FILE", help="Append a row in the columns of timm's results."
)
@click.option("--gates", is_flag=True, help="Say too what the attention does: the answers that change without it.")
@click.option("--batch-size", default=64, metavar="N", show_default=True)
@click.option("--workers", default=2, metavar="N", show_default=True, help="Loader processes.")
def evaluate(
    model: str,
    data: str,
    part: str | None,
    by_order: bool,
    as_json: bool,
    csv: Path | None,
    gates: bool,
    batch_size: int,
    workers: int,
) -> None:
    """Measure a trained model on held-out images.

    MODEL is a run directory, a model folder, hf-hub:ORG/NAME, or the name of a model with weights. DATA is named as in
    a recipe. Of the data that a run was trained on, what it held out is taken; of other data the test part, or val, or
    all there is. The classes are matched by name.
    """
    from zoo.explain.gate_report import gate_report
    from zoo.inference.evaluation import append_results, evaluate, matched_batches
    from zoo.inference.held_out import open_part
    from zoo.inference.trained import load_trained

    images, classes, words = open_part(model, data, part or "")
    trained = load_trained(model)
    batches = matched_batches(trained, images, classes, batch_size, workers, by_order)
    score = evaluate(trained.network, batches)
    report = gate_report(trained.network, batches) if gates else None
    if csv:
        append_results(csv, trained, score)
    figures = {name: getattr(score, name) for name in ("top1", "top5", "macro_f1", "ece", "loss", "n")}
    if as_json:
        recall = [None if value != value else value for value in score.per_class]
        said = {"gates": report.as_json()} if report else {}
        print(json.dumps({**figures, "per_class": recall, "confusion": score.confusion.long().tolist(), **said}))
    else:
        print(f"top-1 {score.top1:.2f} %, top-5 {score.top5:.2f} %, macro-F1 {score.macro_f1:.2f} %, ", end="")
        print(f"calibration error {score.ece:.2f} %, loss {score.loss:.4f}, n = {score.n} ({words})")
        if report:
            print(report.text())


@click.command()
@click.argument("model", type=click.Path())
@click.argument("images", type=click.Path(), nargs=-1, required=True)
@click.option("--top-k", default=5, metavar="N", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def predict(model: str, images: tuple[str, ...], top_k: int, as_json: bool) -> None:
    """Name what is on images or in volumes.

    MODEL is a run directory, a model folder, hf-hub:ORG/NAME, or the name of a model with weights. IMAGES are image
    files, volumes (.npy), folders of frames, or folders of these.
    """
    from zoo.inference.prediction import find_inputs
    from zoo.inference.prediction import predict as predict_all
    from zoo.inference.trained import load_trained

    failed = seen = 0
    trained = load_trained(model)
    for prediction in predict_all(trained, find_inputs(trained, images), top_k):
        seen += 1
        failed += bool(prediction.error)
        if as_json:
            print(printable_json(json.dumps({**asdict(prediction), "file": str(prediction.file)}, ensure_ascii=False)))
        elif prediction.error:
            print(printable(prediction.error), file=sys.stderr)
        else:
            names = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.classes)
            print(printable(f"{prediction.file}: {names}"))
    if failed == seen:
        raise UserError(f"none of {seen} files can be read by it")
