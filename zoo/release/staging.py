"""What of a run goes to the Hub: a folder of checked files, the same bytes every time it is made.

    README.md            the card (zoo/release/card.py)
    config.json          timm's, with the trained model's own pretrained_cfg
    model.safetensors    with `format: pt` and where it comes from in its header
    recipe.toml, metrics.csv, pictures, .eval_results/    where the run has them

Nothing else is ever taken: a file that is not on this list is an error, not a silent omission.
"""

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from zoo.inference.trained import model_folder
from zoo.models.count import input_size
from zoo.release.card import Facts, eval_results, release_card
from zoo.weights.manifest import FILE_NAME

PICTURES = {".png": b"\x89PNG", ".jpg": b"\xff\xd8\xff", ".jpeg": b"\xff\xd8\xff", ".webp": b"RIFF"}
"""Suffix -> how such a file begins."""
IN_MODEL = {"README.md", "config.json", FILE_NAME, "recipe.toml", "metrics.csv"}
OF_RUN = ("recipe.toml", "metrics.csv")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".tar"}

PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
"""Of a pickle, and of the zip archive around one."""

SECRETS = {
    "a token of the Hugging Face Hub": rb"hf_[A-Za-z0-9]{20,}",
    "a private key": rb"-----BEGIN [A-Z ]*PRIVATE KEY",
    "a key of AWS": rb"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": rb"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_[A-Za-z0-9_]{22,}",
    "a key of a language model's API": rb"\bsk-[A-Za-z0-9_-]{20,}",
    "a token of Slack": rb"\bxox[abprs]-[A-Za-z0-9-]{10,}",
}

KEPT_CFG = (
    "input_size",
    "fixed_input_size",
    "interpolation",
    "crop_pct",
    "crop_mode",
    "mean",
    "std",
    "num_classes",
    "pool_size",
    "first_conv",
    "classifier",
)
"""The keys of a pretrained_cfg that the trained network answers for itself. All others (tag, licence, paper, origin)
may be those of the weights that the training started from."""

PATHS = ("data", "weights", "teacher")
"""Fields of a recipe that may hold a path of the machine it ran on; only its last part is published."""


class StagingError(ValueError):
    """A folder that cannot be published as it is."""


@dataclass(frozen=True)
class Staged:
    """A folder that is ready to be published."""

    folder: Path
    name: str
    """MODEL.TAG."""
    config: Mapping[str, Any]
    sha256: str
    """Of model.safetensors."""
    size: int

    @property
    def files(self) -> dict[str, Path]:
        """Path in the repository -> file."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in found}


def stage(
    source: str | Path,
    folder: Path,
    repo: str,
    license: str = "",
    seeds: Sequence[str | Path] = (),
    baseline: Sequence[str | Path] = (),
    measured: Mapping[str, Any] | None = None,
) -> Staged:
    """Make the folder of a release out of a run or a model folder; `folder` must not be there yet.

    `seeds` are runs of the same recipe with other seeds, `baseline` runs of the plain backbone by it; `measured` are
    figures that take the place of the run's own. Raises StagingError for files that must not be published.
    """
    if license and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise StagingError(f"--license takes a name as the Hub has it, such as mit or apache-2.0, not {license!r}")
    model, extras = find_model(source)
    check_folder(model)
    for extra in extras:
        check_file(extra)
    config = read_config(model)
    architecture = config["architecture"]
    result = {**config.get("zoo", {}).get("result", {}), **(measured or {})}
    if seeds or baseline:
        result |= compare(source, config, seeds, baseline)
    name = f"{architecture}.{tag_of(architecture, repo, config)}"
    config = own_config(config, name, license, result)

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    data = with_provenance((model / FILE_NAME), name, config)
    (folder / FILE_NAME).write_bytes(data)
    pictures = tuple(path.name for path in sorted(model.iterdir()) if path.suffix.lower() in PICTURES)
    for path in (*(model / picture for picture in pictures), *extras):
        shutil.copyfile(path, folder / path.name)
    if (folder / "recipe.toml").exists():
        hide_paths(folder / "recipe.toml", json.loads((model / "config.json").read_text(encoding="utf-8")))
    facts = Facts(name, repo, config, hashlib.sha256(data).hexdigest(), len(data), pictures)
    (folder / "README.md").write_text(release_card(facts), encoding="utf-8")
    if results := eval_results(facts):
        (folder / ".eval_results").mkdir()
        (folder / ".eval_results" / "results.yaml").write_text(results, encoding="utf-8")
    for path in folder.rglob("*"):  # what was written here is looked at like all the rest
        if path.is_file() and path.name != FILE_NAME:
            check_secrets(path)
    return Staged(folder, name, config, facts.sha256, facts.size)


def find_model(source: str | Path) -> tuple[Path, list[Path]]:
    """The model folder of a run or of itself, and the run's other files that are published."""
    model, others = model_folder(source), [Path(source) / name for name in OF_RUN]
    if model is None:
        raise StagingError(f"{source} is no run and no model folder: it has no model/config.json and no config.json")
    return model, [path for path in others if path.exists()]


def check_folder(folder: Path) -> None:
    """Raise StagingError unless all files of a model folder may be published and none that is needed is missing."""
    for path in sorted(folder.iterdir()):
        check_file(path)
    for name in ("config.json", FILE_NAME):
        if not (folder / name).is_file():
            raise StagingError(f"{folder} has no {name}; a model folder is what `zoo train` leaves in RUN/model")


def check_file(path: Path) -> None:
    """Raise StagingError unless this one file may be published."""
    suffix = path.suffix.lower()
    if path.is_symlink():
        raise StagingError(f"{path} is a symbolic link, and what it points to would be published; put a copy there")
    if path.is_dir():
        raise StagingError(f"{path} is a folder; a release has no folders, so move it elsewhere")
    if path.name == FILE_NAME:
        return  # `with_provenance` reads it whole
    with path.open("rb") as file:
        start = file.read(8)
    if suffix in PICKLES or start.startswith(PICKLE_STARTS):
        raise StagingError(f"{path} is or may hold a pickle, which runs code when it is read; move it elsewhere")
    if suffix in PICTURES:
        if not start.startswith(PICTURES[suffix]):
            raise StagingError(f"{path} is no {suffix[1:]} picture; move it elsewhere")
    elif path.name not in IN_MODEL:
        known = ", ".join(sorted(IN_MODEL))
        raise StagingError(f"{path} is not published; move it elsewhere (what is: {known}, and pictures)")
    check_secrets(path)


def check_secrets(path: Path) -> None:
    """Raise StagingError if a file holds what looks like a secret; the message does not repeat it."""
    data = path.read_bytes()
    own = (get_token() or "").encode()
    found = {what: re.search(pattern, data) for what, pattern in SECRETS.items()}
    found["your own token of the Hub"] = re.search(re.escape(own), data) if own else None
    for what, match in found.items():
        if match:
            line = data.count(b"\n", 0, match.start()) + 1
            raise StagingError(f"{path.name}, line {line}, holds what looks like {what}; remove it, and revoke it")


def read_config(model: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises StagingError if no network can be made of it."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
        architecture = config["architecture"]
        num_classes, cfg = config["num_classes"], config["pretrained_cfg"]
        for key in ("input_size", "mean", "std", "interpolation", "crop_pct", "classifier"):
            cfg[key]
    except (ValueError, TypeError, KeyError) as error:
        raise StagingError(f"{model / 'config.json'} is not what timm writes: {error!r}") from None
    if not timm.is_model(architecture):
        raise StagingError(
            f"{model / 'config.json'} names the model {architecture!r}, which neither timm nor the zoo has"
        )
    if num_classes != cfg.get("num_classes", num_classes):
        raise StagingError(f"{model / 'config.json'} has {num_classes} and {cfg['num_classes']} classes")
    return config


def tag_of(architecture: str, repo: str, config: Mapping[str, Any]) -> str:
    """The weights' tag: what the repository's name has behind the model's, else the name of the data."""
    name = repo.split("/")[-1]
    if name.startswith(f"{architecture}."):
        return name.removeprefix(f"{architecture}.")
    data = Path(config.get("zoo", {}).get("recipe", {}).get("data", "")).name
    return re.sub(r"[^a-z0-9]+", "_", data.lower()).strip("_") or "weights"


def own_config(config: Mapping[str, Any], name: str, license: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a release: the trained model's facts, without what timm knows of other weights."""
    cfg = config["pretrained_cfg"]
    kept = {key: cfg[key] for key in KEPT_CFG if cfg.get(key) is not None}
    by_zoo = dict(config.get("zoo", {}))
    license = license or (cfg.get("license", "") if by_zoo else "")
    top = (
        "architecture",
        "num_classes",
        "num_features",
        "global_pool",
        "label_names",
        "label_descriptions",
        "model_args",
    )
    if by_zoo.get("recipe"):
        by_zoo["recipe"] = public_recipe(by_zoo["recipe"])
    if result:
        by_zoo["result"] = dict(result)
    return {
        **{key: config[key] for key in top if config.get(key) is not None},
        "pretrained_cfg": {"tag": name.split(".", 1)[1], "custom_load": False, **kept, **_if("license", license)},
        **_if("zoo", by_zoo),
    }


def _if(key: str, value: Any) -> dict[str, Any]:
    return {key: value} if value else {}


def public_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the folders of the machine it ran on."""
    return {key: public_path(value) if key in PATHS else value for key, value in recipe.items()}


def public_path(value: str) -> str:
    """`/home/me/photos` as `photos`, also behind `wds/` and in `torch/NAME@FOLDER`; everything else as it is."""
    return re.sub(
        r"(?<![^@/])(?:[~/]|[A-Za-z]:\\)[^#@]*", lambda match: re.split(r"[/\\]", match[0].rstrip("/"))[-1], value
    )


def hide_paths(path: Path, config: Mapping[str, Any]) -> None:
    """The same in the text of recipe.toml."""
    text = path.read_text(encoding="utf-8")
    recipe = config.get("zoo", {}).get("recipe", {})
    for key, value in public_recipe(recipe).items():
        if value != recipe[key]:
            text = text.replace(json.dumps(recipe[key], ensure_ascii=False), json.dumps(value, ensure_ascii=False))
    path.write_text(text, encoding="utf-8")


def compare(
    source: str | Path, config: Mapping[str, Any], seeds: Iterable[str | Path], baseline: Iterable[str | Path]
) -> dict[str, Any]:
    """Top-1 of each seed of this recipe and of the plain network by it, as `result` fields. Raises StagingError."""
    free = {"seed", "device", "workers"}
    ours = {str(path): read_config(find_model(path)[0]) for path in (source, *seeds)}
    plain = {str(path): read_config(find_model(path)[0]) for path in baseline}
    found: dict[str, Any] = {"top1_of_seeds": _top1_of_seeds(config, ours, free)} if len(ours) > 1 else {}
    if plain:
        first = next(iter(plain.values()))
        if first["architecture"] == config["architecture"] or not config["architecture"].endswith(
            first["architecture"]
        ):
            raise StagingError(
                f"the baseline is {first['architecture']}; it must be {config['architecture']} without its attention"
            )
        of_seeds = _top1_of_seeds(config, plain, free | {"model", "attn_kwargs"})
        found["baseline"] = {"model": first["architecture"], "top1_of_seeds": of_seeds}
    return found


def _top1_of_seeds(config: Mapping[str, Any], runs: Mapping[str, Any], free: set[str]) -> dict[str, float]:
    recipe = config.get("zoo", {}).get("recipe", {})
    figures: dict[str, float] = {}
    for path, run in runs.items():
        zoo = run.get("zoo", {})
        theirs = zoo.get("recipe", {})
        for key in sorted((recipe.keys() | theirs.keys()) - free):
            if recipe.get(key) != theirs.get(key):
                raise StagingError(f"{path} has {key} = {theirs.get(key)!r} where this recipe has {recipe.get(key)!r}")
        if "top1" not in zoo.get("result", {}):
            raise StagingError(f"{path} has no measured top-1, so it says nothing about this recipe")
        seed = str(theirs.get("seed"))
        if seed in figures:
            raise StagingError(f"{path} has the seed {seed} again; seeds must differ")
        figures[seed] = zoo["result"]["top1"]
    return figures


def with_provenance(path: Path, name: str, config: Mapping[str, Any]) -> bytes:
    """The weights of a file with a header that says what they are; a file that says it already comes back as it is.

    Raises StagingError for a file that is damaged or holds what is no number.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise StagingError(f"{path} is no whole safetensors file: {error}") from None
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise StagingError(f"{path} has infinite or undefined values in {key}; such weights are of no use")
    result = config.get("zoo", {}).get("result", {})
    facts = {
        "format": "pt",
        "architecture": config["architecture"],
        "tag": name.split(".", 1)[1],
        "made_by": "timm-attention-zoo",
        **_if("license", config["pretrained_cfg"].get("license")),
        **_if("origin", config.get("zoo", {}).get("origin")),
        **{key: str(result[key]) for key in ("torch", "timm", "date") if key in result},
    }
    if header == facts:
        return path.read_bytes()
    return sorted_header(save(tensors, facts))


def sorted_header(data: bytes) -> bytes:
    """A safetensors file whose metadata is in order; the library writes it in any order, so bytes would change."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@torch.inference_mode()
def probe(network: Any) -> Tensor:
    """Logits (2, num_classes) of a network for two fixed inputs of noise, images or volumes, of its own size."""
    generator = torch.Generator().manual_seed(0)
    return network.eval()(torch.randn(2, *input_size(network), generator=generator))


def load_staged(staged: Staged) -> Tensor:
    """The logits of the staged model for the fixed images. Raises StagingError if it does not load."""
    try:
        logits = probe(timm.create_model(f"local-dir:{staged.folder}", pretrained=True))
    except (RuntimeError, ValueError, TypeError) as error:
        first = str(error).strip().splitlines()[0]
        raise StagingError(f"the model does not load: {first}") from None
    if not logits.isfinite().all():
        raise StagingError("the model's logits are infinite or undefined, so it is of no use to anybody")
    return logits
