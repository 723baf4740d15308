"""Verify weights: their bytes against a checksum, and that they load; a damaged file in the cache is replaced."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from timm.models import get_pretrained_cfg, is_model_pretrained

from zoo.weights.config import read_config
from zoo.weights.download import packaged, require_files
from zoo.weights.hub_requests import CLIENT_ERRORS, HubError, ask, checksums, checksums_on_hub
from zoo.weights.known import require_model
from zoo.weights.load import load_network
from zoo.weights.manifest import FILE_NAME, Weights, find_weights, read_manifest
from zoo.weights.model_folder import ModelError, find_model_folder, read_finite_weights
from zoo.weights.probe import probe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verified:
    """A file of weights whose bytes are right and which loads."""

    source: str
    file: Path
    sha256: str
    against: str
    """What the checksum was compared with, in words."""
    healed: bool = False
    """Whether it was damaged and was downloaded anew."""


def verify(source: str, say: Say = lambda line: None) -> Verified:
    """Verify a run, a model folder, a name with weights, or `ORG/NAME[@REVISION]` on the Hub.

    `say` gets a line about each damaged file before it is replaced. Raises HubError or ModelError.
    """
    if folder := find_model_folder(source):
        return verify_folder(source, folder)
    hub_id = source.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if "/" in hub_id:
        if Path(source).exists():
            raise ModelError(f"{source} is no run and no model folder: it has no config.json")
        return verify_hub(source, hub_id, say)
    return verify_name(source, say)


def verify_folder(source: str, folder: Path) -> Verified:
    """The model folder of `source`: whole, finite, loading, and as its card and its row of the manifest say."""
    file = folder / FILE_NAME
    if not file.is_file():
        raise ModelError(f"{folder} has no {FILE_NAME}")
    read_config(folder)
    read_finite_weights(file)
    sha256 = checksums(file)[0]
    card = folder / "README.md"
    stated = re.search(r"sha256 `([0-9a-f]{64})`", card.read_text(encoding="utf-8")) if card.is_file() else None
    if stated and stated[1] != sha256:
        raise ModelError(
            f"{file} is not what its card describes: its sha256 is {sha256[:12]}..., the card's {stated[1][:12]}..."
        )
    _require_finite_logits(f"local-dir:{folder}", source)
    row = next((row for row in read_manifest() if row.sha256 == sha256), None)
    against = f"{row.name} of the manifest" if row else "its card" if stated else "nothing: it was not published yet"
    return Verified(source, file, sha256, against)


def verify_name(name: str, say: Say) -> Verified:
    """A name of timm.list_pretrained(): its row of the manifest, or what the Hub says of the file."""
    if not is_model_pretrained(require_model(name, or_give="a run or ORG/NAME on the Hub")):
        raise ModelError(f"{name} has no weights; names that have: timm.list_pretrained({name.split('.')[0]!r})")
    cfg: Any = get_pretrained_cfg(name)
    row = find_weights(f"{cfg.architecture}.{cfg.tag}") or packaged(cfg)
    if row is None and not cfg.hf_hub_id:
        raise ModelError(
            f"{name} is neither on the Hub nor in the weights manifest, so there is nothing to compare with"
        )
    if row is None:
        pinned, known = _look(cfg.hf_hub_id)
        found = _compare_with_hub(name, pinned, known[FILE_NAME], say)
    elif row.file:
        found = _in_package(row)
    else:
        path, healed = _heal(row.pinned, FILE_NAME, row.sha256, say)
        found = Verified(name, path, row.sha256, "the weights manifest", healed)
    _require_finite_logits(name, name)
    return found


def verify_hub(source: str, hub_id: str, say: Say) -> Verified:
    """ORG/NAME[@REVISION] on the Hub: the weights and config.json against its checksums, and that they load."""
    pinned, known = _look(hub_id)
    found = _compare_with_hub(source, pinned, known[FILE_NAME], say)
    _, healed = _heal(pinned, "config.json", known["config.json"], say)
    _require_finite_logits(f"hf-hub:{pinned}", source)
    return replace(found, healed=found.healed or healed)


def _look(hub_id: str) -> tuple[str, dict[str, str]]:
    """ORG/NAME@COMMIT of a model on the Hub, and path -> checksum of its files."""
    repo, _, revision = hub_id.partition("@")
    info = ask(lambda: HfApi().model_info(repo, revision=revision or None, files_metadata=True), f"look at {repo}")
    known = checksums_on_hub(info)
    require_files(set(known), ("config.json", FILE_NAME), repo)
    return f"{repo}@{info.sha}", known


def _compare_with_hub(source: str, pinned: str, checksum: str, say: Say) -> Verified:
    path, healed = _heal(pinned, FILE_NAME, checksum, say)
    commit = pinned.partition("@")[2]
    return Verified(source, path, checksums(path)[0], f"the Hub, at {commit[:7]}", healed)


def _in_package(row: Weights) -> Verified:
    path = row.path()
    assert path is not None
    if not path.is_file() or checksums(path)[0] != row.sha256:
        raise ModelError(f"{path} is missing or damaged; install the package anew (pip install --force-reinstall)")
    return Verified(row.name, path, row.sha256, "the weights manifest")


def _heal(pinned: str, name: str, checksum: str, say: Say) -> tuple[Path, bool]:
    """The cached file, downloaded if it is missing or damaged; and whether it was damaged.

    `checksum` is its sha256, or git's sha1 of a file that the Hub does not keep as a large one.
    """
    repo, _, revision = pinned.partition("@")
    cached = try_to_load_from_cache(repo, name, revision=revision)
    if isinstance(cached, str) and checksum in checksums(Path(cached)):
        return Path(cached), False
    damaged = isinstance(cached, str)
    if damaged:
        say(f"{cached} is damaged ({Path(cached).stat().st_size} bytes); downloading it anew")

    def download() -> str:
        try:
            return hf_hub_download(repo, name, revision=revision, force_download=damaged)
        except ValueError as error:  # how the client says that a forced download failed
            if isinstance(error.__cause__, CLIENT_ERRORS):
                raise error.__cause__ from None
            raise

    path = Path(ask(download, f"download {name} of {repo}"))
    if checksum not in checksums(path):
        raise HubError(f"{name} of {repo} at {revision[:7]} is not what it should be, also when downloaded anew")
    return path, damaged


def _require_finite_logits(name: str, source: str) -> None:
    logits = probe(load_network(name, source))
    if not torch.isfinite(logits).all():
        raise ModelError(f"{source} loads, but its logits are infinite or undefined")
