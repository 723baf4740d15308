"""A model folder: config.json and model.safetensors as timm's `local-dir:` reads them, e.g. RUN/model.

folder = find_model_folder("runs/quickstart")
network = load_network(f"local-dir:{folder}")
"""

import json
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import UserError
from zoo.weights.hub_requests import fetch


class ModelError(UserError, ValueError):
    """A model that cannot be found, has no weights, or is damaged."""


def find_model_folder(source: str | Path) -> Path | None:
    """The model folder of a run, or `source` itself if it is one; None if it is neither."""
    folders = (Path(source) / "model", Path(source))
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises ModelError if timm cannot make a network of it."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture = config["architecture"]
        num_classes, cfg = config["num_classes"], config["pretrained_cfg"]
        for key in ("input_size", "mean", "std", "interpolation", "crop_pct", "classifier"):
            cfg[key]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is not what timm writes: {error!r}") from None
    if not timm.is_model(architecture):
        raise ModelError(f"{path} names the model {architecture!r}, which neither timm nor the zoo has")
    if num_classes != cfg.get("num_classes", num_classes):
        raise ModelError(f"{path} has {num_classes} and {cfg['num_classes']} classes")
    return config


def read_finite_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and the metadata of a safetensors file; reads every value.

    Raises ModelError if the file is damaged or a value is infinite or undefined.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        weights: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ModelError(f"{path} is no whole safetensors file: {error}") from None
    for key, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{path} has infinite or undefined values in {key}; such weights are of no use")
    return weights, metadata


def load_network(name: str) -> Any:
    """timm's model of this name, with its weights. Raises ModelError if they do not fit, HubError."""
    try:
        return fetch(lambda: timm.create_model(name, pretrained=True), name)
    except RuntimeError as error:  # an architecture that nobody has registered, or weights of another one
        raise ModelError(f"{name} does not load: {' '.join(str(error).split())[:300]}") from None
