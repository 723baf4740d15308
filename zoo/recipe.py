"""A training recipe: a TOML file read into a frozen, typed dataclass. An unknown key is an error."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


class RecipeError(ValueError):
    """A recipe file, key or value is wrong."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `zoo train` does. Lengths are in epochs, sizes in pixels, rates as fractions of 1."""

    model: str
    """Name of any timm model, with or without a tag."""
    data: str
    """`digits`, or a folder of class folders with or without train/ and val/."""
    pretrained: bool = False
    """Start from the weights of the model's tag, with a new head if the classes differ."""
    weights: str = ""
    """A file to start from instead: the model's own weights, or those of its plain backbone, with a new head."""
    attn_kwargs: dict[str, Any] = field(default_factory=dict)
    """Switches of the attention, e.g. reduction = 8."""
    epochs: int = 30
    batch_size: int = 128
    image_size: int = 0
    """Side of the square input; 0 is the model's own."""
    optimizer: str = "adamw"
    """Any name of timm's optimizer factory, e.g. adamw, sgd (with Nesterov momentum), lamb."""
    lr: float = 1e-3
    """Peak learning rate."""
    min_lr: float = 0.0
    """Learning rate at the end of the cosine."""
    warmup_epochs: float = 1.0
    """Linear rise of the learning rate from 0."""
    weight_decay: float = 0.05
    """Not applied to biases and norms."""
    momentum: float = 0.9
    """For optimizers that have one."""
    label_smoothing: float = 0.0
    drop_path: float = 0.0
    """Stochastic depth of the last block."""
    ema_decay: float = 0.0
    """Decay a step of the weights' moving average, which is then what is evaluated and saved; 0 is off."""
    crop_scale: float = 0.08
    """Smallest share of the image that a random crop keeps; 1 leaves cropping out."""
    color_jitter: float = 0.0
    """Largest change of brightness, contrast and saturation."""
    hflip: float = 0.5
    """Share of images mirrored; 0 where left and right mean something, as in digits."""
    val_fraction: float = 0.2
    """Share of each class held out where the data has no val/ or test/."""
    seed: int = 0
    workers: int = 2
    """Loader processes; 0 loads in the training process."""
    device: str = ""
    """cuda, cpu, mps ...; empty picks the accelerator if there is one."""

    def __post_init__(self) -> None:
        at_least = {"epochs": 1, "batch_size": 1, "image_size": 0, "workers": 0, "lr": 0, "min_lr": 0}
        at_least |= {"warmup_epochs": 0, "weight_decay": 0}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise RecipeError(f"{name} must be at least {least}, not {getattr(self, name)}")
        shares = (
            "label_smoothing",
            "drop_path",
            "ema_decay",
            "crop_scale",
            "color_jitter",
            "hflip",
            "val_fraction",
            "momentum",
        )
        for name in shares:
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if not 0 < self.val_fraction < 1:
            raise RecipeError(f"val_fraction must leave images on both sides, so not {self.val_fraction}")
        if self.crop_scale == 0:
            raise RecipeError("crop_scale must be above 0: it is the smallest share of the image that a crop keeps")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise RecipeError(f"warmup_epochs {self.warmup_epochs} must be below epochs {self.epochs}")
        if self.min_lr > self.lr:
            raise RecipeError(f"min_lr {self.min_lr} must not be above lr {self.lr}")


TYPES = get_type_hints(Recipe)


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe file, then apply `key=value` overrides. Raises RecipeError."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(
            f"cannot read the recipe {path}: {error.strerror}; configs/ has recipes to start from"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set takes key=value, not {override!r}")
        values[key] = _parse(key, text)
    try:
        return make_recipe(values)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """Build a recipe from plain values, each checked against its field's type. Raises RecipeError."""
    checked = {key: _typed(key, value) for key, value in values.items()}
    required = [f.name for f in dataclasses.fields(Recipe) if f.default is f.default_factory is dataclasses.MISSING]
    for name in required:
        if name not in checked:
            raise RecipeError(f"{name!r} is missing; a recipe needs {' and '.join(required)}")
    return Recipe(**checked)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, every field resolved."""
    lines = [f"{key} = {_toml(value)}" for key, value in dataclasses.asdict(recipe).items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)  # JSON's strings, numbers and booleans are TOML's


def _type(key: str) -> type:
    if key not in TYPES:
        near = difflib.get_close_matches(key, TYPES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(TYPES)}"
        raise RecipeError(f"unknown key {key!r}; {hint}")
    return get_origin(TYPES[key]) or TYPES[key]


def _typed(key: str, value: Any) -> Any:
    wanted = _type(key)
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise RecipeError(f"{key} must be {_name(key)}, not {value!r}")
    return value


def _name(key: str) -> str:
    arguments = get_args(TYPES[key])
    return (
        "a table"
        if arguments
        else {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(
            TYPES[key].__name__, "a text in quotes"
        )
    )


def _parse(key: str, text: str) -> Any:
    """The value of `--set key=text`: as the file would have it, but texts need no quotes."""
    if _type(key) is str:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise RecipeError(f"{key} must be {_name(key)}, not {text!r}") from None
