"""`zoo explain`: a figure and the raw maps of each picture, and what they are, in a folder that appears whole.

NAME.png         the figure (zoo/explain/figure.py)
NAME.npz         the raw values: PATH/GATE of each attention, grad_cam, and the box that the network saw
manifest.json    the models, and of each picture its file, its classes, and the range of each gate
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

import zoo
from zoo.data import DataError
from zoo.data.input_spec import input_spec
from zoo.explain.faithfulness import Faithfulness
from zoo.explain.figure import explain_figure
from zoo.explain.picture import Picture, open_picture
from zoo.explain.view import View, is_constant, look_at
from zoo.explain.watching import ExplainError, attention_modules
from zoo.files import write_whole
from zoo.inference import Trained

DOTS_PER_INCH = 100


@dataclass(frozen=True)
class Explained:
    """What was written."""

    folder: Path
    figures: tuple[str, ...]
    """Names of files, one a picture that could be read."""
    faithfulness: Faithfulness | None


def explain(
    models: Sequence[Trained],
    files: Iterable[Path],
    folder: Path,
    measure: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Explained:
    """Write `folder`, which must not be there: a figure for each file, of one model or of two below each other.

    The first model must have attention; the second may be a plain one. With `measure`, the maps of the first are held
    against the network (zoo/explain/faithfulness.py). A file that cannot be read is said and left out; raises DataError
    if that is so of all, ExplainError for a model without attention, and OSError.
    """
    first = models[0]
    attention_modules(first.network)
    if folder.exists():
        raise ExplainError(f"{folder} is there already; give another folder, so that nothing in it is lost")
    faithfulness = Faithfulness(first.network) if measure else None
    listed: dict[str, dict[str, Any]] = {}
    failed: list[str] = []

    def write(beside: Path) -> None:
        beside.mkdir(parents=True)
        for file in files:
            try:
                pictures = [open_picture(file, each.config, input_spec(each.network)) for each in models]
            except DataError as error:
                failed.append(str(error))
                say(str(error))
                continue
            views = [look_at(each, picture) for each, picture in zip(models, pictures, strict=True)]
            name = _free_name(file.stem, listed)
            explain_figure(pictures[0], views).savefig(beside / f"{name}.png", dpi=DOTS_PER_INCH)
            np.savez_compressed(beside / f"{name}.npz", **_raw(pictures[0], views))
            listed[name] = {"file": str(file), "models": [_described(view) for view in views]}
            if faithfulness:
                faithfulness.add(pictures[0].x)
        if not listed:
            raise DataError(
                f"none of {len(failed)} files can be read by it" if failed else "there are no pictures there"
            )
        about = {
            "models": [each.source for each in models],
            "versions": {"zoo": zoo.__version__, "torch": torch.__version__, "timm": timm.__version__},
            "pictures": listed,
            "left_out": failed,
            **({"faithfulness": faithfulness.as_json()} if faithfulness else {}),
        }
        (beside / "manifest.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    folder.parent.mkdir(parents=True, exist_ok=True)
    write_whole(folder, write)
    return Explained(folder, tuple(f"{name}.png" for name in listed), faithfulness)


def _free_name(stem: str, taken: Iterable[str]) -> str:
    """`rose`, or `rose-2` if another folder had one."""
    names, number = set(taken), 2
    name = stem
    while name in names:
        name, number = f"{stem}-{number}", number + 1
    return name


def _raw(picture: Picture, views: Sequence[View]) -> dict[str, Any]:
    """The raw maps, those of a second model below `compared/`."""
    arrays: dict[str, Any] = {"box": np.array(picture.box)}
    for view, prefix in zip(views, ("", "compared/"), strict=False):
        for path, maps in view.maps.items():
            arrays |= {f"{prefix}{path}/{name}": gate[0].float().cpu().numpy() for name, gate in maps.values.items()}
        if view.cam is not None:
            arrays[f"{prefix}grad_cam"] = view.cam.float().cpu().numpy()
    return arrays


def _described(view: View) -> dict[str, Any]:
    gates = {}
    for path, maps in view.maps.items():
        for name, gate in maps.values.items():
            start = maps.constants[name]
            gates[f"{path}.{name}"] = {
                "least": _finite(gate.min()),
                "mean": _finite(gate.float().mean()),
                "largest": _finite(gate.max()),
                "start": _finite(start),
                "constant": is_constant(gate, start),
            }
    return {"classes": [[name, _finite(share)] for name, share in view.classes], "gates": gates}


def _finite(value: Any) -> float | None:
    """A number that JSON has."""
    return float(value) if math.isfinite(value) else None
