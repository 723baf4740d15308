"""Paths of the machine that a run was made on, shortened before they are published: `/home/me/photos` to `photos`."""

import re
import tomllib
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from zoo.training.recipe_file import dump_toml

PATHS = ("model", "data", "weights", "teacher")
"""Fields of a recipe that may hold a path of the machine it ran on; only its last part is published."""


def public_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the folders of the machine it ran on."""
    return {key: public_path(value) if key in PATHS else value for key, value in recipe.items()}


def public_path(value: str) -> str:
    """`/home/me/photos` as `photos`, also behind `wds/` and in `torch/NAME@FOLDER`; everything else as it is."""
    if value.startswith("local-dir:"):
        return f"local-dir:{public_path(value.removeprefix('local-dir:'))}"
    return re.sub(
        r"(?<![^@/])(?:[~/]|[A-Za-z]:\\)[^#@]*", lambda match: re.split(r"[/\\]", match[0].rstrip("/"))[-1], value
    )


def hide_paths(path: Path) -> None:
    """Shorten the paths in a recipe.toml. Raises tomllib.TOMLDecodeError, a ValueError."""
    text = path.read_text(encoding="utf-8")
    recipe = tomllib.loads(text)
    public = public_recipe(recipe)
    if public != recipe:
        notes = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
        path.write_text(notes + dump_toml(public), encoding="utf-8")
