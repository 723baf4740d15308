"""Weights out of a file that somebody else made, without running code that the file may bring."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import UserError

NESTED = ("state_dict", "model", "net")
"""Where the checkpoint of a training keeps the state dict."""


class ConvertError(UserError, ValueError):
    """A file that holds no weights, or none of the model that was named."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file or of PyTorch's format. Raises ConvertError."""
    path = Path(path)
    if not path.is_file():
        raise ConvertError(f"there is no file {path}")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ConvertError(f"{path} is no whole safetensors file: {error}") from None
    content = _load(path)
    while isinstance(content, Mapping):
        inner = next((content[key] for key in NESTED if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    weights = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not weights:
        raise ConvertError(f"{path} holds no state dict, but {type(content).__name__}")
    return weights


def _load(path: Path) -> Any:
    """What a file of PyTorch's format holds: tensors, numbers, texts and containers of them."""
    if zipfile.is_zipfile(path):
        inside = zipfile.ZipFile(path).namelist()
        if not any(name.endswith("data.pkl") for name in inside):
            raise ConvertError(f"{path} is an archive of {', '.join(inside[:3])}; unpack it, and give what was in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old formats, which are then read or refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:global|class|operand)[^\w]*([\w.]+)", str(error))
        what = f" ({found[1] or found[2]})" if found else ""
        raise ConvertError(
            f"{path} holds more than weights{what}, and reading that could run any code it brings; save only the state "
            "dict where you trust the file: torch.save(model.state_dict(), FILE)"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ConvertError(f"{path} is no whole PyTorch file: {str(error).splitlines()[0]}") from None
