"""What makes a run's batches: which loader, transforms and sizes, and what happens to a batch on the device."""

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import Tensor

from zoo.data import Data, DataError
from zoo.data.augment import cut_out, erase, mixer
from zoo.data.found_again import some
from zoo.data.input_spec import InputSpec
from zoo.data.kinds import IMAGES, Way, kind_of
from zoo.data.loaders import (
    Batch,
    DeviceBatches,
    HeldOutOnDevice,
    HostBatches,
    TrainingBatches,
    Transform,
    one_size,
    require_workers,
    training_transform,
)
from zoo.data.order import Share, generator
from zoo.data.splitting import labels_of
from zoo.data.streams import Stream, StreamBatches
from zoo.errors import in_a_line
from zoo.models.sizes import require_takes, require_takes_one
from zoo.processes import World
from zoo.training.recipe import Recipe, RecipeError

COLOURS = 3
"""Channels of an image as it is read (zoo/data/pixels.py)."""
HeldOutBatches = Callable[[Any], Iterable[Batch]]
"""A held-out part to its batches."""
Normalise = Callable[[Tensor], Tensor]
"""uint8 images to normalised ones on the device."""
Prepare = Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]
"""uint8 images and labels of a micro-batch, its step and number, to normalised images and soft targets."""


def data_config(recipe: Recipe, model: Any, spec: InputSpec) -> dict[str, Any]:
    """What timm's transforms take: the input (C, H, W), mean, std, interpolation and crop."""
    mine = model.pretrained_cfg
    shape = (spec.channels, *spec.size[-2:])
    asked: dict[str, Any] = {"input_size": shape}
    for name in ("mean", "std"):
        asked[name] = getattr(recipe, name) or None
        if asked[name] is None and len(mine[name]) != spec.channels:  # of colours, for a network of greys
            asked[name] = (sum(mine[name]) / len(mine[name]),)
    return resolve_data_config(asked, model=model)


def require_match(recipe: Recipe, data: Data, spec: InputSpec) -> None:
    """Raise RecipeError if network, data and augmentation are not all for images, or all for volumes."""
    held = kind_of(data.train)
    if held is not spec.kind:
        raise RecipeError(
            f"{recipe.data} holds {held.many} and {recipe.model} takes {spec.kind.many}; take {held.example}, for one"
        )
    if spec.kind is IMAGES and spec.channels != COLOURS:
        raise RecipeError(
            f"{recipe.model} takes {spec.channels} channels with in_chans = {spec.channels}, and images are read in "
            f"{COLOURS} colours; leave in_chans out of model_kwargs"
        )
    if recipe.num_classes not in (0, len(data.classes)):
        raise RecipeError(
            f"num_classes is {recipe.num_classes}, and {recipe.data} has {len(data.classes)} classes "
            f"({some(data.classes, 5)}); leave it out, since the data says it"
        )
    REFUSE[spec.kind.name](recipe)


def require_size(recipe: Recipe, model: Any, spec: InputSpec, world: World) -> None:
    """Raise SizeError if the network does not take inputs of the recipe's sizes, or not one at a time."""
    if recipe.batch_size == recipe.accumulate * world.size:
        require_takes_one(model, spec, recipe.model)
    if recipe.start_size:
        require_takes(model, spec.of_size((recipe.start_size,) * spec.kind.axes), recipe.model)
    if recipe.image_size:
        require_takes(model, spec, recipe.model)


IMAGES_ONLY = ("auto_augment", "color_jitter", "start_size", "erase", "cutout", "cutmix", "teacher")
"""Fields that do nothing for volumes."""


def _refuse_for_images(recipe: Recipe) -> None:
    if recipe.dflip:
        raise RecipeError("dflip turns volumes around, and these are images; set it to 0")


def _refuse_for_volumes(recipe: Recipe) -> None:
    if set_ := [name for name in IMAGES_ONLY if getattr(recipe, name)]:
        raise RecipeError(f"{set_[0]} is for images; leave it out for volumes, or set it to its default")
    if recipe.loader == "host":
        raise RecipeError("volumes are read once and live on the device; leave loader = 'auto'")
    if recipe.crop_scale < 1 and not recipe.crop_padding:
        raise RecipeError("volumes are shifted (crop_padding, in voxels) and not scaled; set crop_scale = 1")


REFUSE = {"images": _refuse_for_images, "volumes": _refuse_for_volumes}
"""What a recipe cannot ask for, by the name of the kind."""


def share_of_update(recipe: Recipe, data: Data, world: World) -> Share:
    """How this process cuts its share out of an update. Raises RecipeError or DataError if there is no even share."""
    images, pieces = len(data.train), world.size * recipe.accumulate
    if not images:
        raise DataError("the stream does not say how many images it has; give a data set that does")
    if images < recipe.batch_size:
        raise DataError(f"batch_size {recipe.batch_size} is more than the {images} training images; lower it")
    if recipe.batch_size % pieces or (recipe.batch_size // pieces % 2 and (recipe.mixup or recipe.cutmix)):
        even = ", an even number each," if recipe.mixup or recipe.cutmix else ""
        raise RecipeError(
            f"batch_size {recipe.batch_size} cannot be shared{even} by {world.size} processes x accumulate "
            f"{recipe.accumulate}; try {2 * pieces * max(1, round(recipe.batch_size / pieces / 2))}"
        )
    if recipe.balance != "none" and isinstance(data.train, Stream):
        raise RecipeError(
            f"balance = {recipe.balance!r} has to know the class of each image beforehand, and a stream does not say "
            "it; leave it at 'none'"
        )
    labels = tuple(labels_of(data.train)) if recipe.balance == "sampler" else ()
    return Share(images, recipe.batch_size, recipe.accumulate, world.rank, world.size, recipe.seed, labels)


def make_batches(
    recipe: Recipe,
    data: Data,
    spec: InputSpec,
    config: dict[str, Any],
    share: Share,
    world: World,
    layout: torch.memory_format,
    normalise: Normalise,
) -> tuple[TrainingBatches, HeldOutBatches]:
    """Training batches and those of held-out parts: out of one tensor on the device, or by loader processes."""
    at_once = max(1, recipe.batch_size // (recipe.accumulate * world.size))
    require_workers(recipe.workers)
    if spec.kind.only_on_device or _fits_device(recipe, data, config):
        stack = cache(partial(spec.kind.stack, shape=spec.shape, device=world.device))
        mirrors = [getattr(recipe, name) for name in spec.kind.mirrors]
        training = DeviceBatches(*stack(data.train), share, spec.size, recipe.crop_padding, mirrors)
        return training, lambda part: HeldOutOnDevice(*stack(part), normalise, at_once, world.rank, world.size)

    way = Way(world.device, at_once, recipe.workers, layout, world.rank, world.size)
    held_out = cache(lambda part: spec.kind.held_out(part, config, spec.shape, way))
    transforms = _transforms(recipe, config)
    if isinstance(data.train, Stream):
        return StreamBatches(data.train, share, transforms, recipe.workers), held_out
    pin = world.device.type == "cuda"
    return HostBatches(data.train, share, transforms, recipe.workers, pin), held_out


def _fits_device(recipe: Recipe, data: Data, config: dict[str, Any]) -> bool:
    """Whether the images live on the device; if that is asked for and cannot be, a RecipeError says why."""
    if recipe.loader == "host":
        return False
    asks_for = {
        "auto_augment": bool(recipe.auto_augment),
        "color_jitter": recipe.color_jitter > 0,
        "vflip": recipe.vflip > 0,
        "start_size": recipe.start_size > 0,
        "crop_scale below 1 without crop_padding": recipe.crop_scale < 1 and not recipe.crop_padding,
        "images of another size than the model's, or too many": False,
    }
    size = config["input_size"][1:]
    if not any(asks_for.values()):
        parts = [part for part in (data.train, data.val, data.test) if part is not None]
        fits = all(one_size(part) == size for part in parts) and config["crop_pct"] == 1
        asks_for["images of another size than the model's, or too many"] = not fits
    reasons = [name for name, present in asks_for.items() if present]
    if reasons and recipe.loader == "device":
        raise RecipeError(f"loader device cannot do this: {reasons[0]}; take loader = 'host'")
    return not reasons


def _transforms(recipe: Recipe, config: dict[str, Any]) -> list[Transform]:
    """The training transform of each epoch."""
    full = config["input_size"][1:]
    if recipe.start_size and full[0] != full[1]:
        raise RecipeError(f"start_size is for square images, and these are {full[0]}x{full[1]}; leave it out")
    sizes = [full] * recipe.epochs
    if recipe.start_size:
        sides = [size_of_epoch(recipe.start_size, full[0], recipe.epochs, epoch) for epoch in range(recipe.epochs)]
        sizes = [(side, side) for side in sides]
    of_size = {size: _transform(recipe, config, size) for size in set(sizes)}
    return [of_size[size] for size in sizes]


def _transform(recipe: Recipe, config: dict[str, Any], size: tuple[int, int]) -> Transform:
    make = partial(
        training_transform,
        config,
        size,
        crop_scale=recipe.crop_scale,
        crop_padding=recipe.crop_padding,
        hflip=recipe.hflip,
        vflip=recipe.vflip,
        color_jitter=recipe.color_jitter,
    )
    try:
        return make(auto_augment=recipe.auto_augment)
    except Exception as error:
        make()  # what is wrong without it too, is wrong with something else
        raise RecipeError(
            f"auto_augment {recipe.auto_augment!r} is nothing that timm knows ({in_a_line(error)}); rand-m9-mstd0.5, "
            "augmix-m5-w4-d2, 3a and original are"
        ) from error


def size_of_epoch(first: int, full: int, epochs: int, epoch: int) -> int:
    """Side of the images: from `first` in steps of 32 pixels to `full` at 80 % of the epochs."""
    share = min(1.0, epoch / max(1.0, 0.8 * epochs - 1))
    return full if share == 1 else min(full, first + round((full - first) * share / 32) * 32)


def make_preparation(recipe: Recipe, share: Share, normalise: Normalise, classes: int, device: torch.device) -> Prepare:
    """Normalise, then erase, cut out and mix as far as the recipe wants."""
    parts, count = share.parts(), recipe.batch_size
    mix = mixer(recipe.mixup, recipe.cutmix, recipe.label_smoothing, classes)
    steps: list[Callable[..., Tensor]] = []
    if recipe.erase:
        steps.append(partial(erase, share=recipe.erase))
    if recipe.cutout:
        steps.append(partial(cut_out, side=recipe.cutout))

    def prepare(images: Tensor, labels: Tensor, step: int, number: int) -> tuple[Tensor, Tensor]:
        images, labels = normalise(images), labels.to(device, non_blocking=True)
        for name, change in enumerate(steps):
            draw = generator(device, "erase", recipe.seed, step, name)
            images = change(images, count=count, part=parts[number], draw=draw)
        return mix(images, labels)

    return prepare
