"""A training recipe: frozen, typed fields, each with its rule beside it, and what they say of each other."""

from collections.abc import Mapping
from dataclasses import field
from functools import wraps
from math import isfinite
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from zoo.errors import UserError
from zoo.training.recipe_words import Words, mistake

T = TypeVar("T")


class RecipeError(UserError, ValueError):
    """A recipe file, key or value is wrong."""


def _errors_in_words(recipe: type[T]) -> type[T]:
    """Let the constructor raise RecipeError, with the first mistake in one line, instead of pydantic's report."""
    cls: Any = recipe
    validate = cls.__init__

    @wraps(validate)
    def __init__(self: T, /, **values: Any) -> None:  # `self` is no name of a field, but may be a wrong key
        try:
            validate(self, **values)
        except ValidationError as error:
            raise RecipeError(mistake(recipe, values, error)) from None

    cls.__init__ = __init__
    return recipe


def _require_plain(table: dict[str, Any]) -> dict[str, Any]:
    for key, value in table.items():
        if not _is_plain(value):
            raise ValueError(f"must hold texts, finite numbers, true, false, lists or tables, not {key} = {value!r}")
    return table


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | str) or (isinstance(value, float) and isfinite(value))


FromList = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""Lists are what TOML has. A set stays refused: it has no order."""

Count = Annotated[int, Field(ge=0)]
CountFromOne = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveShare = Annotated[float, Field(gt=0.0, le=1.0)]
Numbers = Annotated[tuple[float, ...], FromList]
Names = Annotated[tuple[str, ...], FromList]
Table = Annotated[dict[str, Any], AfterValidator(_require_plain)]
"""What TOML can hold, so that recipe.toml repeats the run."""
ELSEWHERE = {
    "attn_kwargs": "attn_kwargs is a field of its own",
    "checkpoint_path": "weights is the field for a file",
    "drop_path_rate": "drop_path is the field for it",
    "features_only": "a run trains a classifier",
    "num_classes": "the data says how many there are",
    "pretrained": "pretrained is a field of its own",
    "pretrained_cfg": "weights is the field for weights from elsewhere",
    "pretrained_cfg_overlay": "weights is the field for weights from elsewhere",
}
"""Arguments of timm.create_model that have a place of their own, and no other."""
Sides = Annotated[tuple[CountFromOne, ...], Field(min_length=2, max_length=3), FromList]
ImageSize = Annotated[
    Count | Sides, Words("be a whole number, or several in brackets", "be a side, [H, W] or [D, H, W]")
]
Where = Annotated[str | Names, Words("be a text in quotes, or several in brackets")]
HeldOut = Annotated[float, Field(gt=0.0, lt=1.0), Words(bounds="leave images on both sides, so be above 0 and below 1")]
Decay = Annotated[
    float,
    Field(ge=0.0, lt=1.0),
    Words(bounds="be at least 0 and below 1, where nothing is averaged (0.999 is usual)"),
]
Smoothing = Annotated[
    float,
    Field(ge=0.0, lt=1.0),
    Words(bounds="be at least 0 and below 1, where nothing of the label is left (0.1 is usual)"),
]


@_errors_in_words
@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True),
)
class Recipe:
    """What `zoo train` does. Lengths are in epochs, sizes in pixels, rates as fractions of 1.

    A wrong value, an unknown key and a missing one raise RecipeError, also by `dataclasses.replace`.
    """

    model: str
    """Name of any timm model, with or without a tag."""
    data: str
    """Data by one string, e.g. digits, a folder of class folders or hfds/NAME; zoo/data/README.md has all forms."""
    num_classes: Count = 0
    """For shards, which do not say it; 0 takes what the data says."""
    pretrained: bool = False
    """Start from the weights of the model's tag, with a new head if their number of classes is another."""
    weights: str = ""
    """What to start from instead, likewise: a file of the model's own weights or of its plain backbone's, a run, or
    hf-hub:ORG/NAME."""
    new_head: bool = False
    """Start with a new head though the weights tell as many classes apart as the data has."""
    by_order: bool = False
    """Take class i of the weights' head, and of the teacher, for class i of the data, whatever their names are."""
    attention: str = ""
    """Attention to put into a network that has none of the zoo's, e.g. cbam; exactly, so that it starts as it was."""
    where: Where = "stages"
    """Where that goes: stages, blocks, or patterns of module names, e.g. ["layer1.*.conv2", "layer4"]."""
    attn_kwargs: Table = field(default_factory=dict)
    """Switches of the attention, e.g. reduction = 8."""
    model_kwargs: Table = field(default_factory=dict)
    """Other arguments of timm.create_model, e.g. pad_type = "same"."""

    epochs: CountFromOne = 30
    """Times that every training image is seen."""
    batch_size: CountFromOne = 128
    """Images an update, over all processes and micro-batches."""
    accumulate: CountFromOne = 1
    """Micro-batches an update; each goes through the network by itself."""
    image_size: ImageSize = 0
    """Side of the square input, or [H, W], or [D, H, W] of volumes; 0 is the model's own."""
    mean: Numbers = ()
    """Of the pixels, between 0 and 1, e.g. [0.5, 0.5, 0.5]; empty takes what the weights were trained with."""
    std: Annotated[tuple[Positive, ...], FromList] = ()
    """Of the pixels, likewise."""
    start_size: Count = 0
    """Side in the first epoch, growing in steps of 32 to image_size at 80 % of training; 0 is image_size throughout."""

    optimizer: str = "adamw"
    """Any name of timm's optimizer factory, e.g. adamw, sgd (with Nesterov momentum), lamb."""
    lr: Amount = 1e-3
    """Peak learning rate."""
    momentum: Share = 0.9
    """For optimizers that have one."""
    weight_decay: Amount = 0.05
    """Not applied to biases and norms."""
    layer_decay: PositiveShare = 1.0
    """Factor a layer, from the head down, on the learning rate of the backbone; head and gates keep the full rate."""
    gate_lr_scale: Positive = 1.0
    """Learning rate of the gates as a multiple of lr."""
    clip_grad: Amount = 0.0
    """Largest norm of the gradient; 0 is off."""
    schedule: Literal["cosine", "one-cycle", "step", "wsd", "constant"] = "cosine"
    """cosine, one-cycle (linear down), step, wsd (stable, then linear down), constant; all after the warm-up."""
    warmup_epochs: Amount = 1.0
    """Linear rise of the learning rate from 0. Left out, it is a quarter of a run of less than 4 epochs; so it is where
    `--set epochs` leaves no room for that of a recipe file."""
    min_lr: Amount = 0.0
    """Learning rate at the end of cosine, one-cycle and wsd."""
    decay_epochs: Positive = 30.0
    """Length of a step of the step schedule, and of the decay of wsd."""
    decay_at: Numbers = ()
    """Epochs at which the step schedule applies its factor, instead of every decay_epochs."""
    decay_rate: Share = 0.1
    """Factor a step of the step schedule."""
    head_epochs: Count = 0
    """First epochs in which only the head and the gates train; all others stay as they are, batch norms too."""
    freeze: Names = ()
    """Beginnings of parameter names that never train, e.g. ["conv_stem", "blocks.0"]."""

    loss: Literal["ce", "bce"] = "ce"
    """ce, or bce: a binary decision a class."""
    label_smoothing: Smoothing = 0.0
    """Share of the label that is spread over all classes."""
    balance: Literal["none", "sampler", "loss"] = "none"
    """For classes of unequal size: sampler draws every class equally often, loss weighs an image by the inverse of its
    class's size, with 1 as the mean over the training images."""
    mixup: Amount = 0.0
    """Alpha of mixup; 0 is off."""
    cutmix: Amount = 0.0
    """Alpha of cutmix; 0 is off. With both, a coin decides for each batch."""
    drop_path: Share = 0.0
    """Stochastic depth of the last block."""
    ema_decay: Decay = 0.0
    """Decay a step of the weights' moving average, which is then what is evaluated and saved; 0 is off."""
    teacher: str = ""
    """A trained model of classes of the same names to distil from: a run, hf-hub:ORG/NAME, or a name with weights."""
    distill: Share = 0.5
    """Share of the loss that comes from the teacher, if there is one."""
    temperature: Positive = 1.0
    """Of the distillation."""
    standardize_logits: bool = False
    """Compare what student and teacher say of an image by logits of mean 0 and standard deviation 1 (arXiv 2403.01427),
    so that a small student need not come to logits as large as the teacher's."""
    branch_loss: bool = False
    """A loss for each branch of a network that has several (hacnn), in place of one for their joined logits."""

    crop_scale: PositiveShare = 0.08
    """Smallest share of the image that a random crop keeps; 1 leaves cropping out."""
    crop_padding: Count = 0
    """Black pixels around the image before a crop of its own size, as for CIFAR; 0 takes resized crops instead.
    Volumes are shifted so, by as many voxels along each axis."""
    hflip: Share = 0.5
    """Share of images mirrored; 0 where left and right mean something, as in digits."""
    vflip: Share = 0.0
    """Share of images turned upside down."""
    dflip: Share = 0.0
    """Share of volumes mirrored along the depth, for which vflip is the height and hflip the width."""
    color_jitter: Share = 0.0
    """Largest change of brightness, contrast and saturation."""
    auto_augment: str = ""
    """RandAugment and its relatives as timm writes them, e.g. rand-m9-mstd0.5."""
    erase: Share = 0.0
    """Share of images of which a random rectangle is erased."""
    cutout: Count = 0
    """Side of a square erased from every image; 0 is off."""

    amp: Literal["off", "bf16", "fp16"] = "off"
    """Mixed precision: off, bf16, fp16."""
    channels_last: bool = False
    """Keep maps in memory with their channels innermost."""
    compile: bool = False
    """Through torch.compile, a teacher, too."""
    sync_bn: bool = False
    """Batch statistics over all processes."""
    loader: Literal["auto", "host", "device"] = "auto"
    """host (loader processes), device (one tensor there; small images of one size), or auto."""
    workers: Count = 2
    """Loader processes; 0 loads in the training process."""
    on_bad_image: Literal["refuse", "skip"] = "refuse"
    """refuse: stop and name it; skip: read every image once before training, and leave bad ones out."""

    val_fraction: HeldOut = 0.2
    """Share of each class split off where the data has no held-out part."""
    split_seed: Count = 0
    """Of that split; the same split for every training seed."""
    patience: Count = 0
    """Stop after so many epochs without a better one on the validation part, and keep the best; 0 trains to the end and
    keeps the last."""
    seed: int = 0
    """Of the starting weights, the order of the images and their augmentation."""
    checkpoint_minutes: Amount = 5.0
    """Training time between checkpoints, which is the most that can be lost; 0 writes one every update."""
    keep_checkpoints: bool = False
    """Keep RUN/checkpoint once the model is written, too; it is several times as large."""
    tracker: Literal["", "tensorboard", "trackio", "wandb"] = ""
    """Where each epoch's figures go beside metrics.csv; takes the package of that name."""
    device: str = ""
    """cuda, cpu, mps ...; empty picks the accelerator if there is one."""

    @model_validator(mode="before")
    @classmethod
    def _short_warmup(cls, values: ArgsKwargs) -> ArgsKwargs:
        """A run of a few epochs is not all warm-up."""
        given = values.kwargs or {}
        if "warmup_epochs" not in given and given.get("epochs") in (1, 2, 3):
            return ArgsKwargs(values.args, {**given, "warmup_epochs": given["epochs"] / 4})
        return values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        """The rules over several fields."""
        if self.warmup_epochs >= self.epochs and self.warmup_epochs > 0:
            raise ValueError(f"warmup_epochs {self.warmup_epochs} must be below epochs {self.epochs}")
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr {self.min_lr} must not be above lr {self.lr}")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of accumulate {self.accumulate}")
        if self.where != "stages" and not self.attention:
            raise ValueError(f'where {self.where!r} says where attention goes; say which, such as attention = "cbam"')
        if (len(self.mean), len(self.std)) not in ((0, 0), (1, 1), (3, 3)):
            raise ValueError(f"mean {list(self.mean)} and std {list(self.std)} must both have a number a channel")
        if isinstance(self.image_size, int) and 0 < self.image_size < self.start_size:
            raise ValueError(f"start_size {self.start_size} must not be above image_size {self.image_size}")
        if self.new_head and not (self.pretrained or self.weights):
            raise ValueError("new_head leaves out the head of trained weights; set pretrained or weights, too")
        if self.by_order and not (self.pretrained or self.weights or self.teacher):
            raise ValueError("by_order is about trained weights or a teacher; set pretrained, weights or teacher, too")
        if self.standardize_logits and not self.teacher:
            raise ValueError("standardize_logits is about a teacher's logits; set teacher, too")
        if taken := [key for key in self.model_kwargs if key in ELSEWHERE]:
            raise ValueError(f"model_kwargs cannot hold {taken[0]}: {ELSEWHERE[taken[0]]}")
        return self
