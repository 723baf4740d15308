"""config.json of a model folder or a repository: read, and refused where no network should be built of it.

Whoever wrote it may be a stranger, and timm builds what it says. So nothing is built before it was looked at, and
nothing of a size that the weights beside it do not have.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from numbers import Real
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg

from zoo.weights.manifest import FILE_NAME
from zoo.weights.model_folder import ModelError

MOST_VALUES = 2**27
"""Of an input, before it is cropped: half a gigabyte in fp32, a volume of 512 x 512 x 512."""
USUAL = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "classifier")
"""Keys of a pretrained_cfg that timm leaves out where they are as in every other."""
CHOICES = {
    "interpolation": ("bicubic", "bilinear", "nearest", "lanczos", "hamming", "box", "random"),
    "crop_mode": ("center", "squash", "border"),
}
OTHERS = {
    "architectures": ("transformers", lambda value: value[0]),
    "model_type": ("transformers", str),
    "_class_name": ("diffusers", str),
    "model_cfg": ("open_clip", lambda value: ""),
}
"""Keys by which another library says what its network is -> the library, and how it says it."""


def read_config(folder: Path, called: str = "") -> dict[str, Any]:
    """config.json of a model folder, with what timm leaves out. `called` is what the user calls the folder.

    Raises ModelError if timm cannot make a network of it, or it is one that no input could be made for.
    """
    path = folder / "config.json"
    whose = f"config.json of {called}" if called else str(path)
    try:
        return _checked(_parse(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError as error:
        raise ModelError(f"{whose} is not what timm writes: it is no JSON ({error})") from None
    except Fault as fault:
        raise ModelError(f"{whose} {fault}") from None


def check_config(text: str, whose: str) -> dict[str, Any]:
    """The same of a config.json that lies in another file. Raises ModelError that begins with `whose`."""
    try:
        return _checked(_parse(text))
    except Fault as fault:
        raise ModelError(f"{whose} {fault}") from None


class Fault(ValueError):
    """What is wrong with a config.json, as the rest of a sentence about it."""


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    config = _with_usual(config)
    _check_input(config)
    _check_labels(config)
    return config


def _parse(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except RecursionError:
        raise Fault("is not what timm writes: it is nested too deeply") from None
    except ValueError as error:
        raise Fault(f"is not what timm writes: it is no JSON ({error})") from None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        other = next((_other(config, key) for key in OTHERS if isinstance(config, dict) and key in config), "")
        raise Fault(other or "is not what timm writes: it names no architecture")
    if not timm.is_model(config["architecture"]):
        raise Fault(f"names the model {config['architecture']!r:.80}, which neither timm nor the zoo has")
    return config


def _other(config: Mapping[str, Any], key: str) -> str:
    library, name = OTHERS[key]
    called = f" ({name(config[key])!s:.80})" if config[key] and name(config[key]) else ""
    return f"holds a network of {library}{called}, not one of timm; load it with {library}"


def _with_usual(config: dict[str, Any]) -> dict[str, Any]:
    """The config in the form of today, complete; timm once wrote all in one table."""
    given = config.get("pretrained_cfg", config)
    for key, table in (("pretrained_cfg", given), ("model_args", config.get("model_args") or {})):
        if not isinstance(table, dict):
            raise Fault(f"is not what timm writes: it has {key} that are no table")
    usual = asdict(PretrainedCfg())
    cfg = {**{key: usual[key] for key in USUAL}, **given}
    count = config.get("num_classes", given.get("num_classes", usual["num_classes"]))
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise Fault(f"has the num_classes {count!r:.80}, which is no number of classes")
    if count != cfg.get("num_classes", count):
        raise Fault(f"has {count} and {cfg['num_classes']} classes")
    return {**config, "num_classes": count, "pretrained_cfg": cfg}


def _check_input(config: Mapping[str, Any]) -> None:
    """Raise Fault unless an input can be made: of the size, cut and scaled as the config says."""
    cfg, arguments = config["pretrained_cfg"], config.get("model_args") or {}
    size, crop = cfg["input_size"], cfg["crop_pct"]
    if not isinstance(size, list | tuple) or len(size) != 3 or not all(isinstance(side, int) for side in size):
        raise Fault(f"has the input_size {size!r:.80}; timm's is [channels, height, width]")
    if not _is_number(crop) or crop <= 0:
        raise Fault(f"has the crop_pct {crop!r:.80}, which is no part of an image")
    depth = arguments.get("depth", 1)
    shape = (size[0], *([depth] if "depth" in arguments else ()), *size[1:])
    said = f"asks for an input of {' x '.join(map(str, shape))}"
    if not all(isinstance(side, int) and side > 0 for side in shape):
        raise Fault(said)
    if math.prod(shape) > MOST_VALUES:
        raise Fault(f"{said}, more than the {MOST_VALUES / 1e6:.0f} million values that the zoo takes")
    if math.prod(shape) / min(crop, 1) ** 2 > MOST_VALUES:
        raise Fault(f"{said} cut out of one {1 / crop:.0f} times as large; correct its crop_pct")
    for key, choices in CHOICES.items():
        if cfg[key] not in choices:
            raise Fault(f"has the {key} {cfg[key]!r:.80}; timm knows {', '.join(choices)}")
    for key, least in (("mean", -math.inf), ("std", 0)):
        values = cfg[key]
        wanted = isinstance(values, list | tuple) and len(values) in (1, 3, size[0])
        if not wanted or not all(_is_number(value) and value > least for value in values):
            raise Fault(f"has the {key} {values!r:.80}, not a number for each of {size[0]} channels")


def _check_labels(config: Mapping[str, Any]) -> None:
    """Raise Fault unless each class has a name, or none has."""
    names = config.get("label_names", config["pretrained_cfg"].get("label_names"))
    if isinstance(names, dict) and all(str(key).isdigit() for key in names):
        names = list(names.values())
    if not names:
        return
    if not isinstance(names, list | tuple) or not all(isinstance(name, str | int) for name in names):
        raise Fault("is not what timm writes: it has label_names that are no list of texts")
    if len(names) != config["num_classes"]:
        raise Fault(f"names {len(names)} classes of {config['num_classes']}")


def check_weights(folder: Path, config: Mapping[str, Any], called: str, healed_by: str) -> None:
    """Raise ModelError if the network of `config` is another one than the weights beside it, by size.

    It is built on the meta device for that, which asks for no memory, where timm can do so. `healed_by` says what
    becomes of a file that is damaged.
    """
    try:
        with safe_open(folder / FILE_NAME, "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"the weights of {called} are damaged ({error}); {healed_by}") from None
    cfg, count = config["pretrained_cfg"], config["num_classes"]
    classifier = cfg["classifier"][0] if isinstance(cfg["classifier"], list | tuple) else cfg["classifier"]
    head = shapes.get(f"{classifier}.weight")
    if head and head[0] - (cfg.get("label_offset") or 0) != count:
        raise ModelError(f"config.json of {called} has {count} classes, and {FILE_NAME} has {head[0]}")
    held = sum(math.prod(shape) for shape in shapes.values())
    try:
        with torch.device("meta"):
            network = timm.create_model(f"local-dir:{folder}")
    except (NotImplementedError, RuntimeError):  # how torch says that something needs values
        return
    needed = sum(value.numel() for value in network.state_dict().values())
    if needed > 2 * held + MOST_VALUES:
        raise ModelError(
            f"the network that config.json of {called} describes has {needed / 1e6:.1f} million values, and "
            f"{FILE_NAME} has {held / 1e6:.1f} million"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
