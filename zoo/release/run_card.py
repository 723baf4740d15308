"""The card of a run, before it is released: RUN/model/README.md, from what the run directory holds."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.data.input_spec import input_spec
from zoo.files import write_whole
from zoo.release.card import some
from zoo.release.facts import network_of
from zoo.release.markdown import block, plain
from zoo.release.words import WORDS
from zoo.training.run_directory import kept_words


def write_run_card(directory: Path) -> Path:
    """Write RUN/model/README.md of a run that is complete, and return it. Raises OSError."""
    config = json.loads((directory / "model" / "config.json").read_text(encoding="utf-8"))
    card = run_card(config, (directory / "recipe.toml").read_text(encoding="utf-8"))
    path = directory / "model" / "README.md"
    write_whole(path, lambda beside: beside.write_text(card, encoding="utf-8"))
    return path


def run_card(config: Mapping[str, Any], recipe_toml: str) -> str:
    """The card of a model whose config.json is `config`, trained by the recipe in `recipe_toml`."""
    recipe, result, classes = config["zoo"]["recipe"], config["zoo"]["result"], config["label_names"]
    kind = input_spec(network_of(config)).kind
    words = WORDS[kind.name]
    pipeline = f"pipeline_tag: {words.pipeline}" if words.pipeline else "# the Hub has no pipeline for volumes"
    gates = f"\n\n{plain(config['zoo']['gates']['sentence'])}" if "gates" in config["zoo"] else ""
    measured_on = f"held-out {kind.many} (n = {result['n']}: {plain(result['split'])})"
    return f"""---
library_name: timm
{pipeline}
tags: [{words.task}, timm, attention]
---

# {plain(recipe["model"])}, trained on {plain(recipe["data"])}

    import timm, zoo
    model = timm.create_model("local-dir:PATH-OF-THIS-FOLDER", pretrained=True)

Top-1 {result["top1"]:.2f} % on {measured_on}, {kept_words(result, recipe)}, one seed ({recipe["seed"]}).
{len(classes)} classes: {some(classes)}.{gates}

Trained by this recipe (`zoo train`):

{block(recipe_toml, "toml")}
"""
