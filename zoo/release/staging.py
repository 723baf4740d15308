"""The folder that a release sends to the Hub, made of checked files of a run; the same bytes every time it is made.

    README.md            the card (zoo/release/card.py)
    config.json          timm's, with the trained model's own pretrained_cfg
    model.safetensors    with `format: pt` and where it comes from in its header
    recipe.toml, metrics.csv, pictures    where the run has them; .eval_results/ by zoo/release/benchmark.py

Nothing else is ever taken: a file that is not on this list is an error, not a silent omission.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import Tensor

from zoo.models.switches import noted_form
from zoo.release.card import release_card
from zoo.release.comparison import compare
from zoo.release.data_terms import data_name
from zoo.release.facts import Facts
from zoo.release.provenance import with_provenance
from zoo.release.public_paths import hide_paths, public, public_path, public_words
from zoo.release.publishable import PICTURES, StagingError, check_file, check_folder, check_secrets, find_model
from zoo.weights.config import read_config
from zoo.weights.manifest import FILE_NAME
from zoo.weights.probe import probe

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
"""Keys of a pretrained_cfg that are true of the trained network. All others (tag, licence, paper, origin) may be those
of the weights that the training started from, so they are left out."""

KEPT_FACTS = ("recipe", "result", "origin", "digest", "gates")
"""What a config.json says of a run, and a release repeats."""
FIGURES = ("top1", "top5", "n", "epochs", "seconds", "images_per_second")


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
    figures that take the place of the run's own, of the same images where other runs stand beside them. Raises
    StagingError for files that must not be published, ModelError for a damaged model.
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
        require_same_images(config.get("zoo", {}), measured or {})
        result |= compare(source, config, seeds, baseline)
    check_figures(result)
    name = f"{architecture}.{tag_of(architecture, repo, config)}"
    pictures = tuple(path.name for path in sorted(model.iterdir()) if path.suffix.lower() in PICTURES)
    config = own_config(config, name, license, result, pictures)

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    data = with_provenance(model / FILE_NAME, name, config)
    (folder / FILE_NAME).write_bytes(data)
    for path in (*(model / picture for picture in pictures), *extras):
        shutil.copyfile(path, folder / path.name)
    if (folder / "recipe.toml").exists():
        hide_paths(folder / "recipe.toml")
    facts = Facts(name, repo, config, hashlib.sha256(data).hexdigest(), len(data), pictures)
    (folder / "README.md").write_text(release_card(facts), encoding="utf-8")
    for path in folder.rglob("*"):  # what was written here is looked at like all the rest
        if path.is_file() and path.name != FILE_NAME:
            check_secrets(path)
    return Staged(folder, name, config, facts.sha256, facts.size)


def require_same_images(by_zoo: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
    """Raise StagingError where figures of other images than the run's would stand beside those of other runs."""
    own = {"data": public_path(by_zoo.get("recipe", {}).get("data", "")), "n": by_zoo.get("result", {}).get("n")}
    other = {key: measured[key] for key in own if key in measured}
    if other != {key: own[key] for key in other}:
        raise StagingError(
            f"--measure looked at {other['n']} images of {other['data']}, and the runs of --seeds and --baseline were "
            f"measured on {own['n']} of {own['data']}; leave one of them out"
        )


def tag_of(architecture: str, repo: str, config: Mapping[str, Any]) -> str:
    """The weights' tag: of a repository called ORG/MODEL.TAG that TAG, else the name of the data."""
    name = repo.split("/")[-1]
    if name.startswith(f"{architecture}."):
        return name.removeprefix(f"{architecture}.")
    data = data_name(public_path(config.get("zoo", {}).get("recipe", {}).get("data", "")))
    return re.sub(r"[^a-z0-9]+", "_", data.lower()).strip("_") or "weights"


def check_figures(result: Mapping[str, Any]) -> None:
    """Raise StagingError for a figure that is none."""
    for key in FIGURES:
        value = result.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise StagingError(f"config.json has the {key} {value!r:.80} in zoo.result, which is no number")


def own_config(
    config: Mapping[str, Any], name: str, license: str, result: Mapping[str, Any], pictures: Sequence[str] = ()
) -> dict[str, Any]:
    """config.json of a release: the trained model's facts, without what timm knows of other weights, or paths.

    It lists the release's pictures, so that the next one can tell them from the owner's.
    """
    cfg = config["pretrained_cfg"]
    kept = {key: cfg[key] for key in KEPT_CFG if cfg.get(key) is not None}
    by_zoo = {key: value for key, value in config.get("zoo", {}).items() if key in KEPT_FACTS}
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
        by_zoo["recipe"] = public(by_zoo["recipe"])
    if by_zoo.get("origin"):
        by_zoo["origin"] = public_words(str(by_zoo["origin"]))
    if result:
        by_zoo["result"] = {key: _without_paths(value) for key, value in result.items()}
    if pictures:
        by_zoo["pictures"] = list(pictures)
    licensed = {"license": license} if license else {}
    arguments = public(dict(config.get("model_args") or {}))
    # timm's own save writes only the switches that it was given; the form of the gates is then in its notes alone.
    if switches := {**noted_form(cfg.get("notes")), **(arguments.get("attn_kwargs") or {})}:
        arguments["attn_kwargs"] = switches
    given = {**config, "model_args": arguments or None}
    return {
        **{key: given[key] for key in top if given.get(key) is not None},
        "pretrained_cfg": {"tag": name.split(".", 1)[1], "custom_load": False, **kept, **licensed},
        **({"zoo": by_zoo} if by_zoo else {}),
    }


def _without_paths(value: Any) -> Any:
    """A measured figure, or words about it."""
    if isinstance(value, list):
        return [_without_paths(inner) for inner in value]
    return public_words(value) if isinstance(value, str) else value


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
