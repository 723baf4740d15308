"""Verify weights: the bytes against their checksums, and that they load. A damaged cached file is downloaded anew."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, hf_hub_download, try_to_load_from_cache
from timm.models import get_pretrained_cfg, is_model_pretrained

from zoo.inference.trained import ModelError, load_network, model_folder
from zoo.release.staging import find_model, probe, read_config, with_provenance
from zoo.weights.hub import CLIENT_ERRORS, HubError, ask, checksums
from zoo.weights.manifest import FILE_NAME, Weights, find_weights, read_manifest

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verified:
    """A file of weights whose bytes are right and that loads."""

    source: str
    file: Path
    sha256: str
    against: str
    """What the checksum was compared with, in words."""
    healed: bool = False
    """It was damaged, and was downloaded anew."""


def verify(source: str, say: Say = lambda line: None) -> Verified:
    """Verify a run, a model folder, a name with weights, or `ORG/NAME[@REVISION]` on the Hub.

    `say` is told what was found damaged before it is replaced. Raises HubError or ModelError.
    """
    if model_folder(source):
        return verify_folder(source)
    hub_id = source.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if "/" in hub_id:
        if Path(source).exists():
            raise ModelError(f"{source} is no run and no model folder: it has no config.json")
        return verify_hub(source, hub_id, say)
    return verify_name(source, say)


def verify_folder(source: str) -> Verified:
    """A run or model folder: whole, finite, loading; the same as its card and its row of the manifest say."""
    model, _ = find_model(source)
    file = model / FILE_NAME
    if not file.is_file():
        raise ModelError(f"{model} has no {FILE_NAME}")
    config = read_config(model)
    with_provenance(file, f"{config['architecture']}.verified", config)  # reads every value
    sha256 = checksums(file)[0]
    card = model / "README.md"
    stated = re.search(r"sha256 `([0-9a-f]{64})`", card.read_text(encoding="utf-8")) if card.is_file() else None
    if stated and stated[1] != sha256:
        raise ModelError(
            f"{file} is not what its card describes: its sha256 is {sha256[:12]}..., the card's {stated[1][:12]}..."
        )
    _load(f"local-dir:{model}")
    row = next((row for row in read_manifest() if row.sha256 == sha256), None)
    against = f"{row.name} of the manifest" if row else "its card" if stated else "nothing: it was not published yet"
    return Verified(source, file, sha256, against)


def verify_name(name: str, say: Say) -> Verified:
    """A name of timm.list_pretrained(): its row of the manifest, or what the Hub says of the file."""
    if not timm.is_model(name.split(".")[0]):
        raise ModelError(f"unknown model {name!r}; give a run, ORG/NAME on the Hub, or a name of `zoo list`")
    if not is_model_pretrained(name):
        raise ModelError(f"{name} has no weights; names that have: timm.list_pretrained({name.split('.')[0]!r})")
    cfg: Any = get_pretrained_cfg(name)
    row = find_weights(f"{cfg.architecture}.{cfg.tag}")
    if row is None and not cfg.hf_hub_id:
        raise ModelError(
            f"{name} is neither on the Hub nor in the weights manifest, so there is nothing to compare with"
        )
    if row is None:
        found, _ = _compare_with_hub(name, cfg.hf_hub_id, say)
    elif row.file:
        found = _in_package(row)
    else:
        path, healed = _heal(row.pinned, FILE_NAME, row.sha256, say)
        found = Verified(name, path, row.sha256, "the weights manifest", healed)
    _load(name)
    return found


def verify_hub(source: str, hub_id: str, say: Say) -> Verified:
    """A repository with a model that timm can make: all its parts, and that it loads."""
    found, pinned = _compare_with_hub(source, hub_id, say)
    repo, _, revision = pinned.partition("@")
    _, healed = _heal(pinned, "config.json", _hub_checksums(repo, revision)[0]["config.json"], say)
    _load(f"hf-hub:{pinned}")
    return replace(found, healed=found.healed or healed)


def _compare_with_hub(source: str, hub_id: str, say: Say) -> tuple[Verified, str]:
    """The weights of a repository against the Hub's checksum, and ORG/NAME@COMMIT."""
    repo, _, revision = hub_id.partition("@")
    known, commit = _hub_checksums(repo, revision)
    for name in ("config.json", FILE_NAME):
        if name not in known:
            raise ModelError(f"{repo} has no {name}, so it is no model that the zoo reads")
    path, healed = _heal(f"{repo}@{commit}", FILE_NAME, known[FILE_NAME], say)
    return Verified(source, path, checksums(path)[0], f"the Hub, at {commit[:7]}", healed), f"{repo}@{commit}"


def _hub_checksums(repo: str, revision: str) -> tuple[dict[str, str], str]:
    info = ask(lambda: HfApi().model_info(repo, revision=revision or None, files_metadata=True), f"look at {repo}")
    return {f.rfilename: (f.lfs.sha256 if f.lfs else f.blob_id) or "" for f in info.siblings or ()}, info.sha or ""


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


def _load(name: str) -> None:
    logits = probe(load_network(name))
    if not torch.isfinite(logits).all():
        raise ModelError(f"{name} loads, but its logits are infinite or undefined")
