"""Runs beside the one that is published: other seeds of its recipe, and the plain network by the same recipe."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.release.publishable import StagingError, find_model
from zoo.training.recipe import Recipe
from zoo.weights.config import read_config


def compare(
    source: str | Path, config: Mapping[str, Any], seeds: Iterable[str | Path], baseline: Iterable[str | Path]
) -> dict[str, Any]:
    """Top-1 of each seed of this recipe, and of each seed of the plain network by it, as fields of `zoo.result`.

    `config` is config.json of `source`. Raises StagingError for runs that cannot be compared.
    """
    free = {"seed", "device", "workers"}
    ours = {str(path): read_config(find_model(path)[0]) for path in (source, *seeds)}
    plain = {str(path): read_config(find_model(path)[0]) for path in baseline}
    found: dict[str, Any] = {"top1_of_seeds": _top1_of_seeds(config, ours, free)} if len(ours) > 1 else {}
    if plain:
        first = next(iter(plain.values()))
        whole, backbone = config["architecture"], (config.get("model_args") or {}).get("backbone", "").split(".")[0]
        without = first["architecture"] == backbone if backbone else whole.endswith(first["architecture"])
        if first["architecture"] == whole or not without:
            raise StagingError(
                f"the baseline is {first['architecture']}; it must be {backbone or whole} without its attention"
            )
        of_seeds = _top1_of_seeds(config, plain, free | {"model", "attn_kwargs", "attention", "where"})
        found["baseline"] = {"model": first["architecture"], "top1_of_seeds": of_seeds}
    return found


def _top1_of_seeds(config: Mapping[str, Any], runs: Mapping[str, Any], free: set[str]) -> dict[str, float]:
    usual = json.loads(json.dumps(asdict(Recipe(model="", data=""))))  # fields that a run made before does not have
    recipe = config.get("zoo", {}).get("recipe", {})
    changes = config.get("zoo", {}).get("result", {}).get("changes", [])
    figures: dict[str, float] = {}
    for path, run in runs.items():
        zoo = run.get("zoo", {})
        theirs = zoo.get("recipe", {})
        for key in sorted((recipe.keys() | theirs.keys()) - free):
            mine, other = (values.get(key, usual.get(key)) for values in (recipe, theirs))
            if mine != other:
                raise StagingError(f"{path} has {key} = {other!r} where this recipe has {mine!r}")
        if (other := zoo.get("result", {}).get("changes", [])) != changes:
            raise StagingError(f"of {path} and this run, one went on with other values: {' '.join([*other, *changes])}")
        if "top1" not in zoo.get("result", {}):
            raise StagingError(f"{path} has no measured top-1, so it says nothing about this recipe")
        seed = str(theirs.get("seed"))
        if seed in figures:
            raise StagingError(f"{path} has the seed {seed} again; seeds must differ")
        figures[seed] = zoo["result"]["top1"]
    return figures
