"""A row of the weights manifest from a release, and a model folder's config.json from a row."""

from pathlib import Path
from typing import Any

import timm
import torch

from zoo.models.switches import WITH_ATTENTION
from zoo.release.send import Release
from zoo.release.staging import Staged
from zoo.release.target import PublishError
from zoo.weights.manifest import Weights, find_weights, read_manifest, write_manifest


def config_of(row: Weights) -> dict[str, Any]:
    """config.json of the model folder that a row's weights are released as."""
    facts = {"recipe": row.recipe, "result": row.result, "gates": row.gates, "origin": row.provenance}
    cfg = {key: value for key, value in row.config.items() if key != "label_names"}
    return {
        "architecture": row.model,
        "num_classes": row.config["num_classes"],
        "label_names": row.config.get("label_names"),
        "pretrained_cfg": {**cfg, **({"license": row.license} if row.license else {})},
        **({"model_args": {"attn_kwargs": row.attn_kwargs}} if row.attn_kwargs else {}),
        "zoo": {key: value for key, value in facts.items() if value},
    }


def check_row(staged: Staged) -> None:
    """Raise PublishError if its name and a row's `attn_kwargs` do not build this model.

    It is timm's, or was built with other switches, or nobody says whether its gates are neutral.
    """
    config = staged.config
    if config["architecture"] == WITH_ATTENTION:
        raise PublishError(
            "--register is for models that their name describes whole, and this is a network of timm with attention "
            "put into it; publish it without --register and load it as hf-hub:ORG/NAME"
        )
    if timm.model_entrypoint(config["architecture"]).__module__ != "zoo.models.catalog":
        raise PublishError(f"--register is for models of the zoo, and {config['architecture']} is timm's")
    usual = {"num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate", "attn_kwargs"}
    with torch.device("meta"):
        standard = timm.create_model(config["architecture"])
    given = {key: value for key, value in config.get("model_args", {}).items() if key not in usual and value}
    switches = {key: value for key, value in given.items() if getattr(standard, key, None) != value}
    if switches:
        raise PublishError(
            f"--register: {config['architecture']} was built with {switches}, which its name does not say; publish it "
            "without --register and load it as hf-hub:ORG/NAME"
        )
    if hasattr(standard, "gate_sites") and "neutral" not in attn_kwargs_of(staged):
        raise PublishError(
            f"--register: config.json of this {config['architecture']} does not say the form of its gates; write "
            '"model_args": {"attn_kwargs": {"neutral": true}} if they were trained so that they start at one, false if '
            "in the published form"
        )


def attn_kwargs_of(staged: Staged) -> dict[str, Any]:
    """The switches that the attention of a staged model was built with."""
    return staged.config.get("model_args", {}).get("attn_kwargs", {})


def row_of(staged: Staged, file: str = "", hub: str = "", commit: str = "") -> Weights:
    """The row of a staged model whose weights lie in the package (`file`), on the Hub (`hub` at `commit`), or both."""
    config = staged.config
    cfg = {
        key: value for key, value in config["pretrained_cfg"].items() if key not in ("tag", "custom_load", "license")
    }
    if "label_names" in config:
        cfg["label_names"] = config["label_names"]
    facts = config.get("zoo", {})
    return Weights(
        model=config["architecture"],
        tag=staged.name.split(".", 1)[1],
        sha256=staged.sha256,
        bytes=staged.size,
        config=cfg,
        attn_kwargs=attn_kwargs_of(staged),
        file=file,
        hub=hub,
        commit=commit,
        result=facts.get("result", {}),
        gates=facts.get("gates", {}),
        recipe=facts.get("recipe", {}),
        license=config["pretrained_cfg"].get("license", ""),
        provenance=facts.get("origin", ""),
    )


def write_row(staged: Staged, release: Release, manifest: Path) -> bool:
    """Put the release into the weights manifest; return False if it is there already, True if that changed the file."""
    before = find_weights(staged.name, manifest)
    file = before.file if before and before.sha256 == staged.sha256 else ""
    return put_row(row_of(staged, file, release.repo, release.commit), manifest)


def put_row(row: Weights, manifest: Path) -> bool:
    """Put a row in the place of the one of its name; return False if that is there already, True if it is new."""
    rows = {each.name: each for each in read_manifest(manifest)}
    if rows.get(row.name) == row:
        return False
    write_manifest((rows | {row.name: row}).values(), manifest)
    return True
