"""The verb that measures speed."""

import sys
from pathlib import Path

import click

from zoo.cli.inference import FROM_ONE, Size

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--against", default="", metavar="WORDS", help="Others, by commas; the first is what all are compared with."
)
@click.option("--train", is_flag=True, help="Steps of training, not passes of inference.")
@click.option("--dtype", type=click.Choice(("fp32", "bf16", "fp16")), default="fp32", show_default=True)
@click.option("--batch", type=FROM_ONE, default=8, metavar="N", show_default=True)
@click.option("--image-size", type=Size(), default=(), metavar="SIZE", help="Another size of the inputs.")
@click.option(
    "--layout", type=click.Choice(("channels_last", "contiguous")), default="channels_last", show_default=True
)
@click.option("--compile", "compiled", is_flag=True, help="Each network by torch.compile, too.")
@click.option("--fuse", is_flag=True, help="MODEL folded for inference, too.")
@click.option("--threads", type=FROM_ONE, metavar="N", help="Of the CPU; default as torch has it.")
@click.option("--rounds", type=FROM_ONE, default=11, metavar="N", show_default=True)
@click.option("--device", default="", metavar="NAME", help="cuda, cpu, mps ...; default the accelerator.")
@click.option("--out", type=FILE, metavar="FILE.csv", help="Append the rows, with hardware and versions.")
@click.option("--chart", type=FILE, metavar="FILE.png", help="Draw bars of the times.")
def bench(
    models: tuple[str, ...],
    against: str,
    train: bool,
    dtype: str,
    batch: int,
    image_size: tuple[int, ...],
    layout: str,
    compiled: bool,
    fuse: bool,
    threads: int | None,
    rounds: int,
    device: str,
    out: Path | None,
    chart: Path | None,
) -> None:
    """Time models beside others that take turns with them.

    MODEL... are names of models, with random weights. --against takes `plain` (the network without attention), `timm`
    (timm's gates in the same places), `timm:NAME`, `pytorchcv` (its network of that name) and `pytorchcv:NAME`. Times
    are medians over the rounds; a ratio is that of a round to the first network in it. One thread is timed by the
    seconds that it computed, all else by the clock.
    """
    import torch

    from zoo.bench.bench import bench as measure
    from zoo.bench.table import CHARTS, append, draw, require_writable, text
    from zoo.bench.timing import Conditions
    from zoo.export.fuse import fuse_for_inference
    from zoo.inference.device import pick_device

    for path, kinds in ((out, ()), (chart, CHARTS)):
        if path:
            require_writable(path, kinds)
    if threads:
        torch.set_num_threads(threads)
    how = Conditions(pick_device(device), batch, train, dtype, layout, rounds)
    others = [word for word in against.split(",") if word]
    rows = []
    for model in models:
        print(f"{model} ...", file=sys.stderr, flush=True)
        found = measure(model, others, how, image_size, compiled, fuse_for_inference if fuse else None)
        print(f"{text(found)}\n")
        rows += found
        if out:
            append(out, found)
    if chart:
        draw(chart, rows)
