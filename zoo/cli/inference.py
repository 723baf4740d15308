"""Verbs that use a trained model."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from zoo.errors import UserError
from zoo.printable import printable, printable_json

FROM_ZERO, FROM_ONE = click.IntRange(min=0), click.IntRange(min=1)


class Size(click.ParamType):
    """Of inputs: `224`, `256x128`, or `16x112x112` for volumes."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        sides = value.lower().split("x")
        if len(sides) > 3 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            self.fail(f"{value!r} is no size; 224, 256x128 (height, width), 16x112x112 (depth first) are", param, ctx)
        return tuple(map(int, sides))


def runs_network(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a verb that runs a trained network."""
    options = (
        click.option("--device", default="", metavar="NAME", help="cuda, cpu, mps ...; default the accelerator."),
        click.option("--image-size", type=Size(), default=(), metavar="SIZE", help="Another size of the inputs."),
        click.option("--amp", type=click.Choice(("off", "bf16", "fp16")), default="off", help="Mixed precision."),
    )
    for option in reversed(options):
        verb = option(verb)
    return verb


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
@runs_network
@click.option("--batch-size", type=FROM_ONE, default=64, metavar="N", show_default=True)
@click.option("--workers", type=FROM_ZERO, default=2, metavar="N", show_default=True, help="Loader processes.")
def evaluate(
    model: str,
    data: str,
    part: str | None,
    by_order: bool,
    as_json: bool,
    csv: Path | None,
    gates: bool,
    device: str,
    image_size: tuple[int, ...],
    amp: str,
    batch_size: int,
    workers: int,
) -> None:
    """Measure a trained model on held-out images.

    MODEL is a run directory, a model folder, hf-hub:ORG/NAME, the name of a model with weights, or a file of `zoo
    export`. DATA is named as in a recipe. Of the data that a run was trained on, what it held out is taken; of other
    data the test part, or val, or all there is. The classes are matched by name.
    """
    from zoo.explain.gate_report import gate_report
    from zoo.inference.confusions import confusions
    from zoo.inference.device import autocast, pick_device
    from zoo.inference.evaluation import append_results, evaluate, matched_batches, require_results
    from zoo.inference.held_out import open_part
    from zoo.inference.trained import load_trained

    if csv:
        require_results(csv)
    place = pick_device(device)
    images, classes, words = open_part(model, data, part or "")
    trained = load_trained(model, place, image_size)
    batches = matched_batches(trained, images, classes, batch_size, workers, by_order)
    score = evaluate(trained.network, batches, autocast=autocast(place, amp))
    report = gate_report(trained.network, batches) if gates else None
    if csv:
        append_results(csv, trained, score)
    wrong = confusions(score, trained.names)
    figures = {name: getattr(score, name) for name in ("top1", "top5", "macro_f1", "ece", "loss", "n")}
    if as_json:
        recall = [None if value != value else value for value in score.per_class]
        said = {
            **figures,
            "classes": trained.names,
            "per_class": recall,
            "confusion": score.confusion.long().tolist(),
            **wrong.as_json(),
            **({"gates": report.as_json()} if report else {}),
        }
        print(printable_json(json.dumps(said, ensure_ascii=False)))
    else:
        print(f"top-1 {score.top1:.2f} %, top-5 {score.top5:.2f} %, macro-F1 {score.macro_f1:.2f} %, ", end="")
        print(f"calibration error {score.ece:.2f} %, loss {score.loss:.4f}, n = {score.n} ({words})")
        for line in wrong.text().splitlines():
            print(printable(line))
        if report:
            print(report.text())


@click.command()
@click.argument("model", type=click.Path())
@click.argument("images", type=click.Path(), nargs=-1, required=True)
@click.option("--top-k", type=FROM_ONE, default=5, metavar="N", show_default=True)
@runs_network
@click.option("--json", "as_json", is_flag=True, help="A JSON object a line.")
def predict(
    model: str,
    images: tuple[str, ...],
    top_k: int,
    device: str,
    image_size: tuple[int, ...],
    amp: str,
    as_json: bool,
) -> None:
    """Name what is on images or in volumes.

    MODEL is a run directory, a model folder, hf-hub:ORG/NAME, the name of a model with weights, or a file of `zoo
    export`. IMAGES are image files, volumes (.npy), folders of frames, or folders of these.
    """
    from zoo.inference.device import pick_device
    from zoo.inference.prediction import find_inputs
    from zoo.inference.prediction import predict as predict_all
    from zoo.inference.trained import load_trained

    failed = seen = 0
    trained = load_trained(model, pick_device(device), image_size)
    for prediction in predict_all(trained, find_inputs(trained, images), top_k, amp=amp):
        seen += 1
        failed += bool(prediction.error)
        if as_json:
            print(printable_json(json.dumps({**asdict(prediction), "file": str(prediction.file)}, ensure_ascii=False)))
        elif prediction.error:
            print(printable(prediction.error), file=sys.stderr)
        else:
            names = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.classes)
            print(printable(f"{prediction.file}: {names}"))
    if not seen:
        raise UserError(f"there are no {trained.spec.kind.many} in {', '.join(images)}")
    if failed == seen:
        raise UserError(f"none of {seen} files can be read by it")
