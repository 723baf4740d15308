"""The verb that shows what attention does."""

import sys
from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path())
@click.argument("images", type=click.Path(), nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder to write.")
@click.option("--compare", default="", metavar="MODEL", help="Another network, also a plain one, below the first.")
@click.option("--measure", is_flag=True, help="Measure whether the maps point at what the network uses (torchcam).")
def explain(model: str, images: tuple[str, ...], out: Path, compare: str, measure: bool) -> None:
    """Draw where a network attends, a figure a picture.

    MODEL is a run directory, a model folder, hf-hub:ORG/NAME, or the name of a model with weights. IMAGES are image
    files, volumes (.npy), folders of frames, or folders of these. The raw values are written beside each figure.
    """
    from zoo.explain.cam import INSTALL, has_torchcam
    from zoo.explain.folder import explain as explain_all
    from zoo.inference.prediction import find_inputs
    from zoo.inference.trained import load_trained

    models = [load_trained(name) for name in (model, compare) if name]
    if not has_torchcam():
        print(f"no Grad-CAM beside the gates: it takes torchcam, {INSTALL}", file=sys.stderr)
    found = find_inputs(models[0], images)
    explained = explain_all(models, found, out, measure, say=lambda line: print(line, file=sys.stderr))
    if explained.faithfulness:
        print(explained.faithfulness.text())
    many = "1 figure" if len(explained.figures) == 1 else f"{len(explained.figures)} figures"
    print(
        f"{many} in {out}, such as {out / explained.figures[0]}; raw values beside each, all of them in manifest.json"
    )
