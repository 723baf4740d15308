"""Every choice of a recipe, made before the loop: the model, its batches, and what happens to them."""

import difflib
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models import load_model_config_from_hf, load_state_dict, load_state_dict_from_hf
from torch import Tensor, nn

from zoo.data import Data, DataError, Splitting, Volumes, open_data
from zoo.data.augment import cut_out, erase, mixer, normaliser
from zoo.data.loaders import (
    DeviceBatches,
    HeldOut,
    HeldOutOnDevice,
    HostBatches,
    StreamBatches,
    TrainingBatches,
    one_size,
    to_device,
    training_transform,
)
from zoo.data.order import Share, generator
from zoo.models.count import input_size
from zoo.processes import World
from zoo.training.objective import Objective, make_objective
from zoo.training.recipe import Recipe, RecipeError


@dataclass(frozen=True)
class Job:
    """All that the loop needs and does not change: every choice of the recipe, made."""

    recipe: Recipe
    data: Data
    world: World
    config: dict[str, Any]
    share: Share
    batches: TrainingBatches
    held_out: Callable[[Any], Any]
    """Batches of a held-out part."""
    prepare: Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]
    """uint8 images and labels of a micro-batch, its step and number, to normalised images and soft targets."""
    objective: Objective
    autocast: Callable[[], AbstractContextManager[Any]]
    wrap: Callable[[nn.Module], nn.Module]
    """The model compiled and spread over the processes, as the recipe wants."""


def pick_device(name: str) -> torch.device:
    """The device of that name, or the accelerator if there is one. Raises RecipeError."""
    if not name:
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None


def memory_layout(recipe: Recipe, model: Any) -> torch.memory_format:
    """How images or volumes and the weights for them lie in memory."""
    if not recipe.channels_last:
        return torch.contiguous_format
    return torch.channels_last_3d if _takes_volumes(model) else torch.channels_last


def _takes_volumes(model: Any) -> bool:
    return len(input_size(model)) == 4


def open_training_data(recipe: Recipe, world: World) -> Data:
    """The data of the recipe, split; says what was skipped. Raises DataError."""
    splitting = Splitting(
        val_fraction=recipe.val_fraction,
        seed=recipe.split_seed,
        keep_test=recipe.patience > 0,
        skip_bad=recipe.on_bad_image == "skip",
        num_classes=recipe.num_classes,
    )
    data = open_data(recipe.data, splitting)
    if data.skipped and world.leads:
        shown = ", ".join(data.skipped[:3]) + (", ..." if len(data.skipped) > 3 else "")
        print(f"skipped {len(data.skipped)} images that cannot be read: {shown}", file=sys.stderr)
    return data


def create_model(recipe: Recipe, classes: int) -> Any:
    """The recipe's model with its starting weights and a head for `classes`. Raises RecipeError."""
    name = recipe.model.split(".")[0]
    if ":" not in recipe.model and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`zoo list` prints the zoo's, timm.list_models() all"
        raise RecipeError(f"unknown model {recipe.model!r}; {hint}")
    options: dict[str, Any] = dict(recipe.model_kwargs)
    options |= {"attn_kwargs": recipe.attn_kwargs or None, "drop_path_rate": recipe.drop_path or None}
    if recipe.weights:
        options["pretrained_cfg_overlay"] = _overlay(name, recipe.weights)
    started = recipe.pretrained or bool(recipe.weights)
    try:
        model: Any = timm.create_model(recipe.model, started, num_classes=classes, **options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{recipe.model}: {error}") from None
    model.pretrained_cfg.pop("state_dict", None)
    if isinstance(recipe.image_size, tuple) or _takes_volumes(model):
        _set_size(model, recipe)
    if started and model.pretrained_cfg.get("num_classes") != classes:
        _quiet_head(model)
    return model


def _set_size(model: Any, recipe: Recipe) -> None:
    """Tell a volume network the depth of its volumes. Raises RecipeError if `image_size` is not of its form."""
    size, volumes = recipe.image_size, _takes_volumes(model)
    if size and (len(size) if isinstance(size, tuple) else 1) not in ((3,) if volumes else (1, 2)):
        wanted = "[D, H, W], as it takes volumes" if volumes else "a side or [H, W], as it takes images"
        raise RecipeError(f"image_size of {recipe.model} must be {wanted}, not {_said(size)}")
    if volumes and isinstance(size, tuple):
        model.depth = size[0]


def _said(size: int | tuple[int, ...]) -> str:
    return str(list(size) if isinstance(size, tuple) else size)


def _quiet_head(model: Any) -> None:
    """Let a new head begin with nearly equal probabilities.

    timm's initialisation of MobileNets is for training from scratch: with few classes it gives logits so large that
    their gradients do more harm to trained layers than all of fine-tuning does good.
    """
    classifiers = model.get_classifier()
    for head in classifiers if isinstance(classifiers, tuple | list) else (classifiers,):
        if isinstance(head, nn.Linear | nn.Conv2d):
            nn.init.normal_(head.weight, std=0.01)
            if head.bias is not None:
                nn.init.zeros_(head.bias)


def _overlay(name: str, weights: str) -> dict[str, Any]:
    """What tells timm to start from these weights, whatever their classes, and how their pixels were scaled."""
    seen: dict[str, Any] = {}
    if weights.startswith(("hf-hub:", "hf_hub:")):
        place = weights.partition(":")[2]
        state: Any = load_state_dict_from_hf(place, weights_only=True)
        seen = load_model_config_from_hf(place)[0]
    else:
        path = Path(weights)
        inside = (path / "model" / "model.safetensors", path / "model.safetensors")
        file = path if path.is_file() else next((file for file in inside if file.is_file()), None)
        if file is None:
            raise RecipeError(f"there is no file of weights {weights}, no run and no model folder")
        state = load_state_dict(str(file))
        if file.with_name("config.json").is_file():
            seen = json.loads(file.with_name("config.json").read_text(encoding="utf-8")).get("pretrained_cfg", {})
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifier = cfg.classifier if cfg else None
    head = state.get(f"{classifier[0] if isinstance(classifier, tuple) else classifier}.weight")
    kept = {key: seen[key] for key in ("mean", "std", "interpolation", "crop_pct", "crop_mode") if key in seen}
    return {"state_dict": state, **kept, **({"num_classes": len(head)} if head is not None else {})}


def make_job(recipe: Recipe, data: Data, model: nn.Module, world: World) -> Job:
    """Make every choice that the recipe leaves to be made, before the loop."""
    volumes = _takes_volumes(model)
    _check_match(recipe, data, volumes)
    config = _input_config(recipe, model)
    share = _share(recipe, data, world)
    layout = memory_layout(recipe, model)
    normalise = normaliser(config["mean"], config["std"], world.device, layout, 3 if volumes else 2)
    held_out: Callable[[Any], Any]
    if volumes or _fits_device(recipe, data, config):
        size = config["input_size"]
        flips = (recipe.hflip,)
        bring: Callable[[Any], tuple[Tensor, Tensor]] = partial(to_device, device=world.device)
        if volumes:
            size = (size[0], int(model.depth), *size[1:])  # pyright: ignore
            flips = (recipe.dflip, recipe.vflip, recipe.hflip)
            bring = partial(Volumes.stack, size=size, device=world.device)
        bring = cache(bring)
        batches: TrainingBatches = DeviceBatches(*bring(data.train), share, size[1:], recipe.crop_padding, flips)
        held_out = lambda part: HeldOutOnDevice(  # noqa: E731
            *bring(part), normalise, _evaluated_at_once(recipe, world), world.rank, world.size
        )
    else:
        transforms = _transforms(recipe, config)
        if isinstance(data.train, torch.utils.data.IterableDataset):
            batches = StreamBatches(data.train, share, transforms, recipe.workers)
        else:
            batches = HostBatches(data.train, share, transforms, recipe.workers, pin=world.device.type == "cuda")
        held_out = cache(
            lambda part: HeldOut(
                part,
                config,
                _evaluated_at_once(recipe, world),
                recipe.workers,
                world.device,
                layout,
                world.rank,
                world.size,
            )
        )
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(recipe.amp)
    autocast = partial(torch.autocast, world.device.type, dtype) if dtype else nullcontext
    compiled: Callable[[nn.Module], Any] = cache(torch.compile) if recipe.compile else lambda model: model
    objective = make_objective(recipe, config, len(data.classes), world.device)
    network: Callable[[nn.Module], nn.Module] = _branches if recipe.branch_loss else lambda model: model
    prepare = _batch_preparation(recipe, share, normalise, len(data.classes), world.device)
    return Job(
        recipe,
        data,
        world,
        config,
        share,
        batches,
        held_out,
        prepare,
        objective,
        autocast,
        lambda model: world.wrap(compiled(network(model))),  # pyright: ignore
    )


def _input_config(recipe: Recipe, model: Any) -> dict[str, Any]:
    """What timm's transforms take: the input (C, H, W), mean, std, interpolation and crop."""
    mine = model.pretrained_cfg
    channels = getattr(model, "in_chans", mine["input_size"][0])
    sides = recipe.image_size[-2:] if isinstance(recipe.image_size, tuple) else (recipe.image_size,) * 2
    asked: dict[str, Any] = {"input_size": (channels, *sides) if recipe.image_size else None}
    for name in ("mean", "std"):
        asked[name] = getattr(recipe, name) or None
        if asked[name] is None and len(mine[name]) != channels:  # of colours, for a network of greys
            asked[name] = (sum(mine[name]) / len(mine[name]),)
    config = resolve_data_config(asked, model=model)
    return config | {"input_size": (channels, *config["input_size"][1:])}


IMAGES_ONLY = ("auto_augment", "color_jitter", "start_size", "erase", "cutout", "cutmix", "teacher")
"""Fields that do nothing for volumes."""


def _check_match(recipe: Recipe, data: Data, volumes: bool) -> None:
    """Raise RecipeError if network, data and augmentation are not all for volumes, or all for images."""
    if isinstance(data.train, Volumes) != volumes:
        held, other = ("images", "volumes") if volumes else ("volumes", "images")
        example = "cbam_resnet18" if volumes else "cbam_resnet18_volume"
        raise RecipeError(f"{recipe.data} holds {held} and {recipe.model} takes {other}; take {example}, for one")
    if not volumes and recipe.dflip:
        raise RecipeError("dflip turns volumes around, and these are images; set it to 0")
    if not volumes:
        return
    set_ = [name for name in IMAGES_ONLY if getattr(recipe, name)]
    if set_:
        raise RecipeError(f"{set_[0]} is for images; leave it out for volumes, or set it to its default")
    if recipe.loader == "host":
        raise RecipeError("volumes are read once and live on the device; leave loader = 'auto'")
    if recipe.crop_scale < 1 and not recipe.crop_padding:
        raise RecipeError("volumes are shifted (crop_padding, in voxels) and not scaled; set crop_scale = 1")


class Branches(nn.Module):
    """A network in training that gives the logits of each of its branches (branches, B, K)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (branches, B, K)."""
        return torch.stack(self.network.forward_branches(x))


def _branches(model: nn.Module) -> nn.Module:
    if not hasattr(model, "forward_branches"):
        raise RecipeError(f"{type(model).__name__} has no branches with logits of their own; leave branch_loss out")
    return Branches(model)


def _evaluated_at_once(recipe: Recipe, world: World) -> int:
    return max(1, recipe.batch_size // (recipe.accumulate * world.size))


def _share(recipe: Recipe, data: Data, world: World) -> Share:
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
    return Share(images, recipe.batch_size, recipe.accumulate, world.rank, world.size, recipe.seed)


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


def _transforms(recipe: Recipe, config: dict[str, Any]) -> list[Callable[[Any], Any]]:
    """The training transform of each epoch."""
    full = config["input_size"][1:]
    if recipe.start_size and full[0] != full[1]:
        raise RecipeError(f"start_size is for square images, and these are {full[0]}x{full[1]}; leave it out")
    sizes = [full] * recipe.epochs
    if recipe.start_size:
        sides = [size_of_epoch(recipe.start_size, full[0], recipe.epochs, epoch) for epoch in range(recipe.epochs)]
        sizes = [(side, side) for side in sides]
    of_size = {
        size: training_transform(
            config,
            size,
            crop_scale=recipe.crop_scale,
            crop_padding=recipe.crop_padding,
            hflip=recipe.hflip,
            vflip=recipe.vflip,
            color_jitter=recipe.color_jitter,
            auto_augment=recipe.auto_augment,
        )
        for size in set(sizes)
    }
    return [of_size[size] for size in sizes]


def size_of_epoch(first: int, full: int, epochs: int, epoch: int) -> int:
    """Side of the images: from `first` in steps of 32 pixels to `full` at 80 % of the epochs."""
    share = min(1.0, epoch / max(1.0, 0.8 * epochs - 1))
    return full if share == 1 else min(full, first + round((full - first) * share / 32) * 32)


def _batch_preparation(
    recipe: Recipe, share: Share, normalise: Callable[[Tensor], Tensor], classes: int, device: torch.device
) -> Callable[[Tensor, Tensor, int, int], tuple[Tensor, Tensor]]:
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
