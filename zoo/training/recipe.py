"""A training recipe: a TOML file read into a frozen, typed dataclass. An unknown key is an error."""

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints


class RecipeError(ValueError):
    """A recipe file, key or value is wrong."""


CHOICES = {
    "schedule": ("cosine", "one-cycle", "step", "wsd", "constant"),
    "loss": ("ce", "bce"),
    "amp": ("off", "bf16", "fp16"),
    "loader": ("auto", "host", "device"),
    "on_bad_image": ("refuse", "skip"),
}
"""Fields that take one of a few words."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `zoo train` does. Lengths are in epochs, sizes in pixels, rates as fractions of 1."""

    model: str
    """Name of any timm model, with or without a tag."""
    data: str
    """Data by one string, see zoo/data/sources.py."""
    num_classes: int = 0
    """For shards, which do not say it; 0 takes what the data says."""
    pretrained: bool = False
    """Start from the weights of the model's tag, with a new head if the classes differ."""
    weights: str = ""
    """What to start from instead, with a new head: a file of the model's own weights or of its plain backbone's, a run,
    or hf-hub:ORG/NAME."""
    attn_kwargs: dict[str, Any] = field(default_factory=dict)
    """Switches of the attention, e.g. reduction = 8."""
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    """Other arguments of timm.create_model, e.g. pad_type = "same"."""

    epochs: int = 30
    batch_size: int = 128
    """Images an update, over all processes and micro-batches."""
    accumulate: int = 1
    """Micro-batches an update; each goes through the network by itself."""
    image_size: int | tuple[int, ...] = 0
    """Side of the square input, or [H, W], or [D, H, W] of volumes; 0 is the model's own."""
    mean: tuple[float, ...] = ()
    """Of the pixels, between 0 and 1, e.g. [0.5, 0.5, 0.5]; empty takes what the weights were trained with."""
    std: tuple[float, ...] = ()
    start_size: int = 0
    """Side in the first epoch, growing in steps of 32 to image_size at 80 % of training; 0 is image_size throughout."""

    optimizer: str = "adamw"
    """Any name of timm's optimizer factory, e.g. adamw, sgd (with Nesterov momentum), lamb."""
    lr: float = 1e-3
    """Peak learning rate."""
    momentum: float = 0.9
    """For optimizers that have one."""
    weight_decay: float = 0.05
    """Not applied to biases and norms."""
    layer_decay: float = 1.0
    """Factor a layer, from the head down, on the learning rate of the backbone; head and gates keep the full rate."""
    clip_grad: float = 0.0
    """Largest norm of the gradient; 0 is off."""
    schedule: str = "cosine"
    """cosine, one-cycle (linear down), step, wsd (stable, then linear down), constant; all after the warm-up."""
    warmup_epochs: float = 1.0
    """Linear rise of the learning rate from 0."""
    min_lr: float = 0.0
    """Learning rate at the end of cosine, one-cycle and wsd."""
    decay_epochs: float = 30.0
    """Length of a step of the step schedule, and of the decay of wsd."""
    decay_at: tuple[float, ...] = ()
    """Epochs at which the step schedule applies its factor, instead of every decay_epochs."""
    decay_rate: float = 0.1
    """Factor a step of the step schedule."""
    head_epochs: int = 0
    """First epochs in which only the head and the gates train; all others stay as they are, batch norms too."""
    freeze: tuple[str, ...] = ()
    """Beginnings of parameter names that never train, e.g. ["conv_stem", "blocks.0"]."""

    loss: str = "ce"
    """ce, or bce: a binary decision a class."""
    label_smoothing: float = 0.0
    mixup: float = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 is off. With both, a coin decides for each batch."""
    drop_path: float = 0.0
    """Stochastic depth of the last block."""
    ema_decay: float = 0.0
    """Decay a step of the weights' moving average, which is then what is evaluated and saved; 0 is off."""
    teacher: str = ""
    """A trained model of the same classes to distil from: a run, hf-hub:ORG/NAME, or a name with weights."""
    distill: float = 0.5
    """Share of the loss that comes from the teacher, if there is one."""
    temperature: float = 1.0
    """Of the distillation."""
    branch_loss: bool = False
    """A loss for each branch of a network that has several (hacnn), in place of one for their joined logits."""

    crop_scale: float = 0.08
    """Smallest share of the image that a random crop keeps; 1 leaves cropping out."""
    crop_padding: int = 0
    """Black pixels around the image before a crop of its own size, as for CIFAR; 0 takes resized crops instead.
    Volumes are shifted so, by as many voxels along each axis."""
    hflip: float = 0.5
    """Share of images mirrored; 0 where left and right mean something, as in digits."""
    vflip: float = 0.0
    """Share of images turned upside down."""
    dflip: float = 0.0
    """Share of volumes mirrored along the depth, for which vflip is the height and hflip the width."""
    color_jitter: float = 0.0
    """Largest change of brightness, contrast and saturation."""
    auto_augment: str = ""
    """RandAugment and its relatives as timm writes them, e.g. rand-m9-mstd0.5."""
    erase: float = 0.0
    """Share of images of which a random rectangle is erased."""
    cutout: int = 0
    """Side of a square erased from every image; 0 is off."""

    amp: str = "off"
    """Mixed precision: off, bf16, fp16."""
    channels_last: bool = False
    compile: bool = False
    """Through torch.compile."""
    sync_bn: bool = False
    """Batch statistics over all processes."""
    loader: str = "auto"
    """host (loader processes), device (one tensor there; small images of one size), or auto."""
    workers: int = 2
    """Loader processes; 0 loads in the training process."""
    on_bad_image: str = "refuse"
    """refuse: stop and name it; skip: read every image once before training, and leave bad ones out."""

    val_fraction: float = 0.2
    """Share of each class split off where the data has no held-out part."""
    split_seed: int = 0
    """Of that split; the same split for every training seed."""
    patience: int = 0
    """Stop after so many epochs without a better one on the validation part, and keep the best; 0 trains to the end and
    keeps the last."""
    seed: int = 0
    checkpoint_minutes: float = 5.0
    """Training time between checkpoints, which is the most that can be lost; 0 writes one every update."""
    tensorboard: bool = False
    """Write RUN/tensorboard too; takes the package tensorboard."""
    device: str = ""
    """cuda, cpu, mps ...; empty picks the accelerator if there is one."""

    def __post_init__(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise RecipeError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise RecipeError(f"unknown {name} {getattr(self, name)!r}; choices are {', '.join(choices)}")
        sides = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        listed = isinstance(self.image_size, tuple)
        if min(sides, default=0) < listed or (listed and len(sides) not in (2, 3)):
            raise RecipeError(f"image_size must be a side, [H, W] or [D, H, W], not {_toml(self.image_size)}")
        if not 0 < self.val_fraction < 1:
            raise RecipeError(f"val_fraction must leave images on both sides, so not {self.val_fraction}")
        for name in ("crop_scale", "layer_decay", "temperature", "decay_epochs"):
            if getattr(self, name) <= 0:
                raise RecipeError(f"{name} must be above 0, not {getattr(self, name)}")
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise RecipeError(f"warmup_epochs {self.warmup_epochs} must be below epochs {self.epochs}")
        if self.min_lr > self.lr:
            raise RecipeError(f"min_lr {self.min_lr} must not be above lr {self.lr}")
        if self.batch_size % self.accumulate:
            raise RecipeError(f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}")
        if (len(self.mean), len(self.std)) not in ((0, 0), (1, 1), (3, 3)):
            raise RecipeError(f"mean {list(self.mean)} and std {list(self.std)} must both have a number a channel")
        if self.label_smoothing == 1:
            raise RecipeError("label_smoothing 1 leaves nothing of the label; 0.1 is usual")


LEAST = {"epochs": 1, "batch_size": 1, "accumulate": 1}
LEAST |= dict.fromkeys(("num_classes", "start_size", "head_epochs", "crop_padding", "cutout"), 0)
LEAST |= dict.fromkeys(("workers", "patience", "split_seed", "lr", "min_lr", "warmup_epochs", "weight_decay"), 0)
LEAST |= dict.fromkeys(("clip_grad", "mixup", "cutmix", "checkpoint_minutes", "temperature"), 0)
"""Smallest value of a field."""
SHARES = ("momentum", "layer_decay", "decay_rate", "label_smoothing", "drop_path", "ema_decay", "distill", "crop_scale")
SHARES += ("hflip", "vflip", "dflip", "color_jitter", "erase", "val_fraction")
"""Fields between 0 and 1."""


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
    try:
        return make_recipe(values | parse_overrides(overrides))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """The values of `key=value` texts. Raises RecipeError."""
    values = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set takes key=value, not {override!r}")
        values[key] = _parse(key, text)
    return values


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


KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text in quotes",
    dict: "a table",
    tuple: "a list in brackets",
    UnionType: "a whole number, or several in brackets",
}


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
    if wanted is tuple and isinstance(value, list | tuple):
        return _items(key, value)
    if wanted is UnionType and isinstance(value, list | tuple) and all(type(side) is int for side in value):
        return tuple(value)
    if type(value) is not (int if wanted is UnionType else wanted):
        raise RecipeError(f"{key} must be {_name(key)}, not {value!r}")
    return value


def _items(key: str, values: Sequence[Any]) -> tuple[Any, ...]:
    wanted = get_args(TYPES[key])[0]
    values = tuple(float(value) if wanted is float and type(value) is int else value for value in values)
    if not all(type(value) is wanted for value in values):
        raise RecipeError(f"{key} must be a list of {'numbers' if wanted is float else 'texts'}, not {list(values)}")
    return values


def _name(key: str) -> str:
    return KINDS[_type(key)]


def _parse(key: str, text: str) -> Any:
    """The value of `--set key=text`: as the file would have it, but texts need no quotes."""
    if _type(key) is str:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        raise RecipeError(f"{key} must be {_name(key)}, not {text!r}") from None
