"""Weights out of a file that somebody else made, without running code that the file may bring."""

import pickle
import re
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import UserError
from zoo.weights.file_kinds import foreign_kind

NESTED = ("state_dict_ema", "model_ema", "state_dict", "model", "net")
"""Where the checkpoint of a training keeps the state dict; averaged weights come first, as in timm."""


class WeightFileError(UserError, ValueError):
    """A file that holds no weights."""


class ConvertError(WeightFileError):
    """A file that holds no weights of the model that was named."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file or of PyTorch's format. Raises WeightFileError."""
    path = Path(path)
    if kind := foreign_kind(path):
        raise WeightFileError(f"{path} {kind}")
    if path.suffix == ".safetensors":
        content: Any = _load_safetensors(path)
    else:
        content = _load(path)
    while isinstance(content, Mapping):
        inner = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not weights:
        what = (
            "nothing" if isinstance(content, Mapping) and not content else f"no weights by name, but {_what(content)}"
        )
        raise WeightFileError(f"{path} holds {what}")
    return weights


def _what(content: Any) -> str:
    if isinstance(content, Mapping):
        return ", ".join(str(key) for key in list(content)[:3])
    return {"list": "a list", "Tensor": "one tensor"}.get(type(content).__name__, type(content).__name__)


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightFileError(f"{path} is no whole safetensors file ({error}); download or copy it again") from None


def _load(path: Path) -> Any:
    """What a file of PyTorch's format holds: tensors, numbers, texts and containers of them."""
    try:
        # Warnings are of old formats, which are then read or refused. timm's checkpoints hold their arguments.
        with warnings.catch_warnings(), torch.serialization.safe_globals([Namespace]):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|Unsupported class) ([A-Za-z_][\w.]+)", str(error))
        if not found:
            raise WeightFileError(f"{path} is no file of weights that PyTorch wrote") from None
        raise WeightFileError(
            f"{path} holds more than weights ({found[1]}), and reading that could run any code it brings; save only "
            "the state dict where you trust the file: torch.save(model.state_dict(), FILE)"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # of bytes that are anything, the reader raises anything
        said = str(error).partition(".")[0].splitlines()
        why = f" ({said[0]})" if said and "weights_only" not in said[0] else ""
        raise WeightFileError(f"{path} is no whole PyTorch file{why}; download or copy it again") from None
