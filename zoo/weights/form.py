"""The form that gates were trained in, where a file of weights says it: neutral (they start at one) or as published.

The same weights compute something else in the other form, and neither names nor shapes tell them apart.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

DESCRIBED = ("model.safetensors", "pytorch_model.bin")
"""Names of the files of weights that a config.json beside them describes: those that timm writes."""


def form_of(path: str | Path) -> bool | None:
    """Whether a file of weights, or a model folder, says that its gates are neutral; None where nobody says.

    A safetensors file says it in its metadata (`neutral`, "true" or "false"); config.json beside it says it in
    `model_args.attn_kwargs.neutral`. A file that cannot be read says nothing: whoever loads it says what is wrong.
    """
    path = Path(path)
    if path.is_dir():
        return _of_config(path / "config.json")
    said = {"true": True, "false": False}.get(_metadata(path).get("neutral", ""))
    return _of_config(path.with_name("config.json")) if said is None and path.name in DESCRIBED else said


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError):
        return {}


def _of_config(path: Path) -> bool | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))["model_args"]["attn_kwargs"]["neutral"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return said if isinstance(said, bool) else None
