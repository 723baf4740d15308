"""The verb that writes a network to a file which runs elsewhere."""

from pathlib import Path

import click

from zoo.cli.inference import Size
from zoo.printable import printable


@click.command()
@click.argument("model", type=click.Path())
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="New file, .onnx or .pt2.")
@click.option("--format", "form", type=click.Choice(("onnx", "pt2")), default=None, help="Default by FILE's name.")
@click.option("--preprocessing", is_flag=True, help="Put the normalisation inside: it takes uint8 pixels (B, H, W, C).")
@click.option("--image-size", type=Size(), default=(), metavar="SIZE", help="Another size of the inputs.")
@click.option("--fixed-size", is_flag=True, help="Leave the batch free alone, not height and width.")
@click.option("--aoti", is_flag=True, help="With pt2: compiled code for this processor (AOTInductor).")
@click.option("--int8", type=click.Path(path_type=Path), metavar="FOLDER", help="In int8, calibrated on its pictures.")
@click.option("--most-lost", type=float, default=2.0, show_default=True, help="Percent that int8 may lose.")
@click.option("--data", default="", metavar="DATA", help="Measure top-1 on it before and after.")
@click.option("--part", type=click.Choice(("train", "val", "test", "all")), help="With --data: another part of it.")
@click.option("--by-order", is_flag=True, help="With --data: match classes by their order, not by name.")
def export(
    model: str,
    out: Path,
    form: str | None,
    preprocessing: bool,
    image_size: tuple[int, ...],
    fixed_size: bool,
    aoti: bool,
    int8: Path | None,
    most_lost: float,
    data: str,
    part: str | None,
    by_order: bool,
) -> None:
    """Write a network to an ONNX or a .pt2 file, checked.

    MODEL is a run directory, a model folder, hf-hub:ORG/NAME, or the name of a model with weights. The file is loaded
    again and run at a batch and a size other than the traced ones; it is kept only if it computes what the network
    does. `zoo predict FILE` and `zoo eval FILE DATA` take it like any model.
    """
    from zoo.export.errors import ExportError
    from zoo.export.writing import export as export_one
    from zoo.export.writing import require_place
    from zoo.inference.held_out import open_part
    from zoo.inference.trained import load_trained

    form = form or ("pt2" if out.suffix.lower() == ".pt2" else "onnx")
    require_place(out, form)
    if aoti and form != "pt2":
        raise ExportError("--aoti makes a .pt2 file; give --format pt2 and --out FILE.pt2")
    if int8 and form != "onnx":
        raise ExportError("--int8 quantises ONNX files; give --format onnx and --out FILE.onnx")
    if int8 and not int8.is_dir():
        raise ExportError(f"--int8 takes a folder of pictures to calibrate on, and {int8} is none")
    if (part or by_order) and not data:
        raise ExportError(f"{'--part' if part else '--by-order'} says how to measure; give --data DATA too")
    held_out = open_part(model, data, part or "") if data else None
    trained = load_trained(model, "cpu", image_size)
    how = (preprocessing, fixed_size, aoti, held_out, by_order, int8, most_lost)
    written = export_one(trained, out, form, *how, say=lambda line: print(printable(line), flush=True))
    print(printable(f"{out}: {written.bytes / 1e6:.2f} MB, free are {', '.join(written.free)}"))
    print(written.difference.text(written.traced))
    for each, said in zip(written.int8, ("kept", "not kept"), strict=False):
        print(f"{each}, {said}")
    if written.on_data and held_out:
        print(printable(written.on_data.text(held_out[2])))
