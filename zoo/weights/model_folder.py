"""A model folder: config.json and model.safetensors as timm's `local-dir:` reads them, e.g. RUN/model."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import UserError


class ModelError(UserError, ValueError):
    """A model that cannot be found, has no weights, or is damaged."""


def find_model_folder(source: str | Path) -> Path | None:
    """The model folder of a run, or `source` itself if it is one; None if it is neither."""
    folders = (Path(source) / "model", Path(source))
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


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
