"""The network that a run starts with: built by name, filled with its starting weights, with a head for the data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import clean_state_dict, is_model_pretrained

from zoo.data.input_spec import InputSpec, input_spec
from zoo.errors import UserError, in_a_line
from zoo.inference.class_names import known_names, match_classes
from zoo.models.head import order_head, quiet_head
from zoo.models.sizes import size_arguments
from zoo.models.switches import WITH_ATTENTION, noted_form
from zoo.training.recipe import Recipe, RecipeError
from zoo.weights.config import read_config
from zoo.weights.download import pinned_source
from zoo.weights.foreign_files import read_weights
from zoo.weights.form import form_of
from zoo.weights.hub_requests import HubError
from zoo.weights.known import require_model
from zoo.weights.load import local_folder
from zoo.weights.model_folder import ModelError

PIXELS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
"""What a model's config says of how its pixels were scaled and cropped."""


def create_model(recipe: Recipe, classes: Sequence[str]) -> Any:
    """The recipe's model with its starting weights and a head for these classes, in their order.

    Raises RecipeError, UnknownModelError, and DataError for weights of as many classes with other names.
    """
    folder = _folder_of(recipe.model)
    name = architecture_of(recipe.model)
    built_by, options = _built_by(recipe, folder)
    options |= recipe.model_kwargs
    options |= {"attn_kwargs": recipe.attn_kwargs or None, "drop_path_rate": recipe.drop_path or None}
    if recipe.image_size:
        sides = recipe.image_size if isinstance(recipe.image_size, tuple) else (recipe.image_size,) * 2
        cfg = timm.get_pretrained_cfg(name)
        options = {**size_arguments(cfg.to_dict() if cfg else {}, sides), **options}
    started = recipe.pretrained or bool(recipe.weights)
    overlay = None
    if recipe.weights:
        overlay, switches = _as_pretrained(name, recipe.weights, built_by)
        options["attn_kwargs"] = {**switches, **recipe.attn_kwargs} or None
    elif started and folder and recipe.attention:
        overlay, _ = _as_pretrained(name, f"local-dir:{folder}", built_by)
    elif started and folder is None:
        require_pretrained(recipe.model)
        if cfg := timm.get_pretrained_cfg(recipe.model):
            overlay = pinned_source(cfg, recipe.model)
    try:
        if isinstance(recipe.image_size, tuple):
            # Only once built, a network tells what it takes; on the meta device that costs no memory.
            with torch.device("meta"):
                options |= training_spec(recipe, timm.create_model(built_by, **options)).model_args
        model: Any = timm.create_model(
            built_by, started, pretrained_cfg_overlay=overlay, num_classes=len(classes), **options
        )
    except (RecipeError, HubError):
        raise
    except UserError as error:
        raise RecipeError(f"{recipe.model}: {error}") from error
    except Exception as error:  # timm calls the network with what the user says, and that can fail in any way
        said = {key: value for key, value in options.items() if value is not None}
        if isinstance(error, OSError | MemoryError) or not said:
            raise
        words = ", ".join(f"{key} = {value!r}" for key, value in said.items())
        raise RecipeError(f"{recipe.model} cannot be built with {words}: {in_a_line(error)}") from error
    model.pretrained_cfg.pop("state_dict", None)
    if started:
        _fit_head(recipe, model, classes)
    return model


def _built_by(recipe: Recipe, folder: Path | None) -> tuple[str, dict[str, Any]]:
    """What timm builds the recipe's model by, and the arguments that say where attention goes in it."""
    if not recipe.attention:
        return recipe.model if folder is None else f"local-dir:{folder}", {}
    where = recipe.where if isinstance(recipe.where, str) else list(recipe.where)
    attached = {"attention": recipe.attention, "where": where}
    if folder is None:
        return WITH_ATTENTION, {"backbone": recipe.model, **attached}
    config = read_config(folder, recipe.model)
    arguments = {key: value for key, value in (config.get("model_args") or {}).items() if key != "num_classes"}
    if "attn_kwargs" in arguments:
        raise RecipeError(f"the network of {recipe.model} has attention; leave out attention = {recipe.attention!r}")
    return WITH_ATTENTION, {**arguments, "backbone": config["architecture"], **attached}


def architecture_of(model: str) -> str:
    """The name that timm builds a recipe's model by, which may be a folder or a repository of the Hub.

    Raises RecipeError for a folder that is none, ModelError, UnknownModelError, HubError.
    """
    folder = _folder_of(model)
    return read_config(folder, model)["architecture"] if folder else require_model(model).split(".")[0]


def _folder_of(model: str) -> Path | None:
    """The folder that a recipe's model is in, the cache's for a repository; None for the name of a model."""
    try:
        folder = local_folder(model, model)
    except HubError:
        raise
    except ValueError as error:
        raise RecipeError(f"{model}: {error}") from None
    if folder and not (folder / "config.json").is_file():
        raise RecipeError(f"{model}: there is no config.json, so it is no model folder")
    return folder


def require_pretrained(model: str) -> None:
    """Raise RecipeError unless there are weights by the name of a model, UnknownModelError without such a model."""
    if not is_model_pretrained(require_model(model)):
        raise RecipeError(
            f"{model} has no weights to start from; set weights to a file, a run or hf-hub:ORG/NAME (--weights in zoo "
            "finetune), or train it from random ones"
        )


def _fit_head(recipe: Recipe, model: Any, classes: Sequence[str]) -> None:
    """Bring the head of the starting weights into the order of the data's classes, or start a new one."""
    count = model.pretrained_cfg["num_classes"]
    if recipe.new_head or count != len(classes):
        quiet_head(model)
        return
    weights = f"the head of {recipe.weights or recipe.model}"
    otherwise = "set new_head = true to start with a new one, or by_order = true to keep it as it is"
    known = known_names(model.pretrained_cfg, count)
    order_head(model, match_classes(classes, known, count, weights, otherwise, recipe.by_order))


def training_spec(recipe: Recipe, model: Any) -> InputSpec:
    """What goes into `model` in this run: its own input, in the size of the recipe if that names one.

    Raises RecipeError for a size that is not of the form which the network takes.
    """
    spec, size = input_spec(model), recipe.image_size
    spec = InputSpec(getattr(model, "in_chans", spec.channels), spec.size, spec.kind)
    if not size:
        return spec
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != spec.kind.axes:
        raise RecipeError(
            f"image_size of {recipe.model} must be {spec.kind.sizes}, as it takes {spec.kind.many}, not {_shown(size)}"
        )
    return spec.of_size(sides)


def _shown(size: int | tuple[int, ...]) -> str:
    return str(list(size) if isinstance(size, tuple) else size)


def _as_pretrained(name: str, weights: str, built_by: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """timm's pretrained_cfg for weights from elsewhere, and the `attn_kwargs` of the same model that they were made by.

    `name` is the network's, `built_by` that of the model with attention in it, where that has another. The former holds
    their tensors, their classes and how pixels were scaled. With the number of classes, timm leaves out a head for
    others. Raises RecipeError if there is no such file, WeightFileError if it holds no weights.
    """
    config: dict[str, Any] = {}
    switches: dict[str, Any] = {}
    path = local_folder(weights, weights) if weights.startswith(("hf-hub:", "hf_hub:", "local-dir:")) else None
    path = path or Path(weights)
    inside = (path / "model" / "model.safetensors", path / "model.safetensors")
    file = next((file for file in inside if file.is_file()), path)
    if not file.exists() or file.is_dir():
        raise RecipeError(f"there is no file of weights {weights}, no run and no model folder")
    state = clean_state_dict(read_weights(file))
    if written := _described(file, weights):
        config = {"label_names": written.get("label_names"), **written["pretrained_cfg"]}
        if written["architecture"] in (name, built_by):
            switches = _switches(config, written.get("model_args") or {})
    elif (neutral := form_of(file)) is not None:
        switches = {"neutral": neutral}
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    classifier = cfg.classifier if cfg else None
    head = state.get(f"{classifier[0] if isinstance(classifier, tuple) else classifier}.weight")
    told = {key: config[key] for key in PIXELS if key in config} | {"label_names": config.get("label_names")}
    return {"state_dict": state, **told, **({"num_classes": len(head)} if head is not None else {})}, switches


def _described(file: Path, weights: str) -> dict[str, Any]:
    """config.json beside a file of weights; empty if there is none, or one of something else beside a user's own file.

    Raises ModelError for that of a run or a model folder, if timm can make nothing of it.
    """
    if not file.with_name("config.json").is_file():
        return {}
    try:
        return read_config(file.parent, weights)
    except ModelError:
        if Path(weights) == file:
            return {}
        raise


def _switches(cfg: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`attn_kwargs` of saved weights: the form by the note that timm saves, and what was written down beside it."""
    return {**noted_form(cfg.get("notes")), **arguments.get("attn_kwargs", {})}
