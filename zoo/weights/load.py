"""A network with its weights by one name: a model's, a folder's or a repository's."""

from functools import partial
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg, parse_model_name

from zoo.weights.config import check_weights, read_config
from zoo.weights.download import download, fetch, healing, pinned_source
from zoo.weights.hub_requests import HubError
from zoo.weights.manifest import FILE_NAME
from zoo.weights.model_folder import ModelError
from zoo.weights.scrub import scrub


def load_network(name: str, called: str = "", **arguments: Any) -> Any:
    """timm's model of this name, `local-dir:` and `hf-hub:` too, with its weights. `called` is what the user gave.

    `arguments` are for timm.create_model.

    Raises ModelError for what is no model, or has other weights than it says; HubError.
    """
    called = called or name
    folder = local_folder(name, called)
    if folder is None:
        return _load_registered(name, called, arguments)
    config = read_config(folder, called)
    if not (folder / FILE_NAME).is_file() and not any(folder.glob("*.[bp]*")):  # .bin, .pt, .pth: of weights alone
        raise ModelError(f"{called} has no weights: there is no {FILE_NAME} in it")
    try:
        if (folder / FILE_NAME).is_file():
            check_weights(folder, config, called, healing(called))
        return fetch(lambda: timm.create_model(f"local-dir:{folder}", pretrained=True, **arguments), called)
    except (HubError, ModelError):
        raise
    except Exception as error:  # timm calls what config.json names with what it says, and that can fail in any way
        raise ModelError(_told(called, error)) from error


def _load_registered(name: str, called: str, arguments: dict[str, Any]) -> Any:
    cfg = get_pretrained_cfg(name)
    overlay = pinned_source(cfg, called) if cfg else {}
    try:
        make = partial(timm.create_model, name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
        return fetch(make, called)
    except RuntimeError as error:  # weights of another network
        raise ModelError(_told(called, error)) from None


def _told(called: str, error: BaseException) -> str:
    return f"{called} does not load: {scrub(str(error))[:300] or type(error).__name__}"


def local_folder(name: str, called: str) -> Path | None:
    """The folder of a `local-dir:` name, or of the cache for a `hf-hub:` name, downloaded first; None for others.

    Raises as `download` does.
    """
    try:
        source, place = parse_model_name(name)
    except ValueError as error:
        raise ModelError(f"{called} names no model: {error}") from None
    if source == "hf-hub":
        return download(place, called)
    return Path(place) if source else None
