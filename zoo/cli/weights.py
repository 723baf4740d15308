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
    from zoo.weights.convert import SOURCES, require_free, write
    from zoo.weights.convert import convert as convert_weights

    require_free(out, tag)
    converted = convert_weights(file, source, model, network)
    line = write(converted, out, tag)
    if not SOURCES[source].license:
        print(f"{SOURCES[source].origin} has no licence: ask its author before you publish", file=sys.stderr)
    print(f"{out}: {converted.name}, {converted.network.num_classes} classes\n\nLoad it:\n")
    print(f"    import timm, zoo\n    model = {line}")


@click.command("list")
@click.argument("pattern", default="*")
@click.option("--names", is_flag=True, help="The names alone.")
def list_models(pattern: str, names: bool) -> None:
    """Print the zoo's models: parameters, multiply-accumulates, size of the input, and the tags of their weights.

    PATTERN takes a part of them, such as "cbam_*". A tag warm_... means weights of the plain network, from which this
    one starts as the same function. In brackets: what weights score, and of those in the package size and licence;
    all others are downloaded.
    """
    from zoo.models.counts import read_counts
    from zoo.weights.manifest import read_manifest

    found = read_counts(pattern)
    if not found:
        raise UserError(f"no model of the zoo matches {pattern!r}; `zoo list` prints all")
    if names:
        print("\n".join(row.model for row in found))
        return
    manifest = read_manifest()
    rows = [("model", "parameters", "GMACs", "input", "weights")]
    for row in found:
        tags = [each.in_words(each.tag) for each in manifest if each.model == row.model]
        if row.warm:
            starts = (each for each in manifest if each.upstream and row.starts_from(each.model, each.tag))
            tags.append(next((each.in_words(row.warm) for each in starts), row.warm))
        cost = (f"{row.parameters / 1e6:.3f} M", row.gmacs)
        rows.append((row.model, *cost, row.size, ", ".join(tags) or "-"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, parameters, gmacs, size, tags in rows:
        print(f"{name:{widths[0]}}  {parameters:>{widths[1]}}  {gmacs:>{widths[2]}}  {size:{widths[3]}}  {tags}")
