"""What the header of published weights says of them; the same weights always become the same bytes."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from zoo.weights.model_folder import read_finite_weights


def with_provenance(path: Path, name: str, config: Mapping[str, Any]) -> bytes:
    """The weights of a file behind a header that says what they are; a file that says so already stays as it is.

    `name` is MODEL.TAG. Raises ModelError for a file that is damaged or holds infinite or undefined values.
    """
    weights, metadata = read_finite_weights(path)
    facts = config.get("zoo", {})
    result = facts.get("result", {})
    about = {
        "format": "pt",
        "architecture": config["architecture"],
        "tag": name.split(".", 1)[1],
        "made_by": "timm-attention-zoo",
        "license": config["pretrained_cfg"].get("license"),
        "origin": facts.get("origin"),
        **{key: str(result[key]) for key in ("torch", "timm", "date") if key in result},
    }
    switches = config.get("model_args", {}).get("attn_kwargs", {})
    if "neutral" in switches:  # a file that is taken out of its folder still says the form of its gates
        about["neutral"] = str(switches["neutral"]).lower()
    about = {key: value for key, value in about.items() if value}
    return path.read_bytes() if metadata == about else sorted_header(save(weights, about))


def sorted_header(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes it in any order, another one each time."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
