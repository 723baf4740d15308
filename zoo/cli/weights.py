"""Verbs about models and their weights."""

import sys
from pathlib import Path

import click

from zoo.errors import UserError


@click.command()
@click.argument("model", type=click.Path())
def verify(model: str) -> None:
    """Compare weights with their checksums, and load them.

    MODEL is a run directory, a model folder, the name of a model with weights, or ORG/NAME on the Hub.
    """
    from zoo.weights.verify import verify as compare

    found = compare(model, say=lambda line: print(line, file=sys.stderr))
    state = "healed" if found.healed else "good"
    print(f"{found.source}: {state}, sha256 {found.sha256}, compared with {found.against}")
    print(f"file: {found.file}")


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--from", "source", required=True, metavar="SOURCE", help="official, pytorchcv, luuuyi, torchvision or timm."
)
@click.option("--model", required=True, metavar="MODEL", help="What to make of it, such as cbam_resnet50.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="FILE.safetensors, or a folder for `zoo publish`.",
)
@click.option("--network", default="", metavar="NAME", help="The source's own name of the network, where it decides.")
@click.option("--tag", default="", metavar="TAG", help="Tag of a folder's weights; default SOURCE_in1k.")
def convert(file: str, source: str, model: str, out: Path, network: str, tag: str) -> None:
    """Convert another project's weights to a model of the zoo.

    FILE is safetensors, or PyTorch's format, of which only weights are read. Gates keep the form in which their project
    published them (neutral=False), gates of a warm start are neutral; what is written says so.
    """
    from zoo.weights.convert import SOURCES, write
    from zoo.weights.convert import convert as convert_weights

    converted = convert_weights(file, source, model, network)
    line = write(converted, out, tag)
    if not SOURCES[source].license:
        print(f"{SOURCES[source].origin} has no licence: ask its author before you publish", file=sys.stderr)
    print(f"{out}: {converted.name}, {converted.network.num_classes} classes\n\nLoad it:\n")
    print(f"    import timm, zoo\n    model = {line}")


@click.command("list")
@click.argument("pattern", default="*")
def list_models(pattern: str) -> None:
    """Print the zoo's models.

    PATTERN takes a part of them, such as "cbam_*".
    """
    import timm

    names = timm.list_models(pattern, module="catalog")
    if not names:
        raise UserError(f"no model of the zoo matches {pattern!r}; `zoo list` prints all")
    print("\n".join(names))
