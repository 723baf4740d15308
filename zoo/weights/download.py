"""Weights from the Hub: one commit's config.json and model.safetensors, and no other file; without it, from its cache.

One question comes first: which commit is it, and what has it? So a Hub that cannot be reached is known at once, what
is not there is said in a sentence, and a file of that commit which is in the cache needs no further question.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError
from timm.models import PretrainedCfg

from zoo.weights.config import read_config
from zoo.weights.hub_requests import SECONDS, HubError, UnreachableError, ask
from zoo.weights.manifest import FILE_NAME, Weights, read_manifest
from zoo.weights.model_folder import ModelError
from zoo.weights.scrub import scrub

T = TypeVar("T")


def download(hub_id: str, called: str) -> Path:
    """The cache's folder of a model on the Hub, ORG/NAME[@REVISION], downloaded where it is not there yet.

    `called` is what the user called it. Raises HubError; ModelError for a repository that holds no such model.
    """
    config = first_file(hub_id, called, ("config.json", FILE_NAME))
    read_config(config.parent, called)  # before gigabytes of weights are asked for
    return _file(hub_id.partition("@")[0], FILE_NAME, config.parent.name, called).parent


def first_file(hub_id: str, called: str, names: tuple[str, ...], cache: Any = None) -> Path:
    """The first of the files `names`, all of which a repository has; in the cache, in a folder called as its commit.

    It comes from the cache alone where that is enough. Raises HubError if it is not and the Hub does not answer,
    ModelError for a repository without such a file.
    """
    repo, _, revision = hub_id.partition("@")
    cached = [try_to_load_from_cache(repo, name, cache, revision or "main") for name in names]
    files = [Path(path) for path in cached if isinstance(path, str)]
    known = files[0] if len(files) == len(names) else None
    if known and known.parent.name == revision:
        return known
    try:
        question = partial(HfApi().model_info, repo, revision=revision or None, timeout=SECONDS)
        info = ask(question, f"load {called}", first=True)
    except HubError as error:
        if known:
            return known
        raise _with_ways_out(error) from None
    if known and known.parent.name == info.sha:
        return known
    require_files({file.rfilename for file in info.siblings or ()}, names, called)
    # By the name of the revision, so that the cache knows its commit the next time.
    return _file(repo, names[0], revision or "main", called, cache)


def require_files(there: set[str], names: tuple[str, ...], called: str) -> None:
    """Raise ModelError if a repository that holds the files `there` lacks one of `names`."""
    for name in names:
        if name in there:
            continue
        pickles = sorted(path for path in there if path.endswith((".bin", ".pt", ".pth", ".ckpt", ".pkl")))
        if name == FILE_NAME and pickles:
            raise ModelError(
                f"{called} has no {FILE_NAME}; its {pickles[0]} may run code when it is read, so the zoo does not ask "
                "for it. If you trust it, download it and give the file to `zoo convert`"
            )
        raise ModelError(f"{called} has no {name}, so it is no model that the zoo reads")


def packaged(cfg: PretrainedCfg) -> Weights | None:
    """The row whose file in the package is read in place of the published weights that `cfg` names.

    None where there is none, and where `cfg` names other weights, or a repository (`hf-hub:`) explicitly.
    """
    if cfg.source or cfg.file or cfg.state_dict or not cfg.hf_hub_id:
        return None
    return next((row for row in read_manifest() if row.file and row.upstream == cfg.hf_hub_id), None)


def pinned_source(cfg: PretrainedCfg, called: str, cache: Any = None) -> dict[str, Any]:
    """What to overlay a pretrained_cfg with that names weights on the Hub: one commit, safetensors, in the cache.

    A file in the package comes first. Empty for weights from elsewhere, and for timm's own that are in other files.
    Raises as `download` does.
    """
    if row := packaged(cfg):
        return {"file": str(row.path())}
    from_hub = cfg.source == "hf-hub" or not (cfg.source or cfg.state_dict or cfg.file)
    others = cfg.source != "hf-hub" and (cfg.custom_load or cfg.hf_hub_filename not in (None, FILE_NAME))
    if not (from_hub and cfg.hf_hub_id) or others:
        return {}
    commit = first_file(cfg.hf_hub_id, called, (FILE_NAME,), cache).parent.name
    return {
        "hf_hub_id": f"{cfg.hf_hub_id.partition('@')[0]}@{commit}",
        "hf_hub_filename": FILE_NAME,
        "custom_load": False,
    }


def _file(repo: str, name: str, revision: str, called: str, cache: Any = None) -> Path:
    try:
        return Path(ask(lambda: hf_hub_download(repo, name, revision=revision, cache_dir=cache), f"load {called}"))
    except RuntimeError as error:  # Xet's, which names addresses
        raise HubError(f"cannot load {called}: {scrub(str(error))}; run the same again") from None


def fetch(action: Callable[[], T], called: str) -> T:
    """Run `action`, which loads the weights that the user calls so. Raises HubError."""
    try:
        return ask(action, f"load {called}")
    except SafetensorError as error:
        raise HubError(f"the weights of {called} are damaged ({error}); {healing(called)}") from None


def healing(called: str) -> str:
    """What to do about damaged weights of that name."""
    if called.startswith("local-dir:") or Path(called).exists():
        return "copy or train them again"
    return f"`zoo verify {called.removeprefix('hf-hub:').removeprefix('hf_hub:')}` replaces them"


def _with_ways_out(error: HubError) -> HubError:
    """The error, with what needs no network if that is what it lacks."""
    if not isinstance(error, UnreachableError):
        return error
    inside = [row.name for row in read_manifest() if row.file]
    others = f", and these weights are in the package: {', '.join(inside)}" if inside else ""
    return UnreachableError(f"{error}. Without a network, `zoo finetune --weights FILE` takes a file or a run{others}")
