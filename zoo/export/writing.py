"""`zoo export`: write a network to a file, load the file again, and refuse it unless it computes the same."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zoo
from zoo.export.check import Difference, OnData, compare, compare_on
from zoo.export.errors import ExportError
from zoo.export.graph import TRACED, free_axes, has_same_padding, traced_size
from zoo.export.int8 import quantise
from zoo.export.onnx_file import require_onnx, write_onnx
from zoo.export.pt2_file import write_pt2
from zoo.files import write_whole
from zoo.inference import Trained
from zoo.inference.exported import About, ExportedNetwork, load_exported
from zoo.inference.held_out import find_run

MOST_LOST = 2.0
"""Percent that a file in int8 may lose, where the user does not say otherwise."""
SPLITTING = ("val_fraction", "split_seed", "patience", "on_bad_image", "num_classes")
"""Fields of a run's recipe by which its data is split again, so that `zoo eval FILE DATA` takes what it held out."""
SLOW = (
    "its padding is arithmetic on free sides, which takes torch minutes to trace; --fixed-size, or --format onnx, does "
    "not"
)


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: Path
    bytes: int
    traced: tuple[int, ...]
    free: tuple[str, ...]
    difference: Difference
    on_data: OnData | None
    int8: tuple[str, ...] = ()
    """What the two ways to quantise gave, in words, the kept one first."""


def require_place(path: Path, form: str) -> None:
    """Raise ExportError unless a new file of that format can be written there, which is better known first."""
    if path.suffix.lower() != f".{form}":
        raise ExportError(f"--out {path} must end in .{form}, by which it is read again; give {path.stem}.{form}")
    if path.exists():
        raise ExportError(f"{path} is there already; give another file with --out, or remove it")
    if not path.parent.is_dir():
        what = "is a file" if path.parent.exists() else "is not there"
        raise ExportError(f"cannot write {path}: the folder {path.parent} {what}")
    if form == "onnx":
        require_onnx()


def export(
    trained: Trained,
    path: Path,
    form: str = "onnx",
    pixels: bool = False,
    fixed: bool = False,
    compiled: bool = False,
    data: tuple[Any, tuple[str, ...], str] | None = None,
    by_order: bool = False,
    int8: Path | None = None,
    most_lost: float = MOST_LOST,
    say: Callable[[str], object] = lambda line: None,
) -> Exported:
    """Write a new file, load it again and hold it against the network, on `data` (`open_part`) as well where given.

    With `pixels` the file takes uint8 pixels and normalises them; with `fixed` its batch alone is free; `compiled` is
    for pt2: code for this processor. `int8` is a folder of pictures on which an ONNX file is quantised, unless that
    loses more than `most_lost` percent. Raises ExportError, and then there is no file.
    """
    require_place(path, form)
    if isinstance(trained.network, ExportedNetwork):
        raise ExportError(f"{trained.source} is exported already; give the run or the model that it was made of")
    if form == "pt2" and not fixed and has_same_padding(trained.network):
        say(f"{trained.source}: {SLOW}")
    config = config_of(trained)
    about = About(pixels, tuple(free_axes(trained, pixels, fixed).values()), trained.parameters)
    write = write_onnx if form == "onnx" else partial(write_pt2, compiled=compiled)
    try:
        place = TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error.strerror}; give another place with --out") from error
    with place as folder:
        beside = Path(folder) / path.name
        write(trained, beside, config, about, fixed)
        exported = load_exported(beside)
        exported.called = str(path)
        difference = compare(trained, exported, fixed)
        on_data = compare_on(trained, exported, data, by_order) if data else None
        quantised = quantise(trained, beside, int8, data, by_order, most_lost) if int8 else None
        told = tuple(each.text() for each in quantised or ())
        kept = quantised[0].path if quantised else beside
        write_whole(path, lambda new: shutil.copyfile(kept, new))
        traced = (TRACED, trained.spec.channels, *traced_size(trained, fixed))
        return Exported(path, path.stat().st_size, traced, about.free, difference, on_data, told)


def config_of(trained: Trained) -> dict[str, Any]:
    """What a config.json of the network says, as far as it is about its inputs, its classes and how its data was split.

    No path of this machine is in it.
    """
    spec, cfg = trained.spec, trained.network.pretrained_cfg
    run = find_run(trained.source)
    facts = {"recipe": {k: run.recipe[k] for k in SPLITTING if k in run.recipe}, "digest": run.digest} if run else {}
    keys = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    config = {
        "architecture": cfg.get("architecture") or trained.source.partition(".")[0],
        "num_classes": trained.network.num_classes,
        "pretrained_cfg": {
            "input_size": [spec.channels, *spec.size[-2:]],
            "num_classes": trained.network.num_classes,
            **{key: trained.config[key] for key in keys},
        },
        "model_args": dict(spec.model_args),
        "zoo": {"version": zoo.__version__, **facts},
    }
    return {**config, "label_names": list(trained.labels)} if trained.labels else config
