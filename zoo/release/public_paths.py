"""Paths of the machine that a run was made on, shortened before they are published: `/home/me/photos` to `photos`."""

import re
import tomllib
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from zoo.release.publishable import StagingError
from zoo.training.recipe_file import dump_toml
from zoo.weights.scrub import scrub

ROOTED = r"(?:[~/\\]|[A-Za-z]:[\\/]|\.\.?(?:[\\/]|$))"
"""How a path begins that says where it is: of a root, a home, a drive, a share, or above this folder."""
PATH = re.compile(rf"(?<![^@/]){ROOTED}.*", re.DOTALL)
"""Such a path to the end of a text, also behind `wds/` and in `torch/NAME@FOLDER`."""
IN_WORDS = re.compile(rf"(?<![\w.:/\\]){ROOTED}[^\s\"',;()]+")
"""Such a path within a sentence."""


def public(value: Any) -> Any:
    """A recipe, or any other value that JSON has, with the paths in it shortened, however deep."""
    if isinstance(value, Mapping):
        return {key: public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(public(inner) for inner in value)
    return public_path(value) if isinstance(value, str) else value


def public_path(value: str) -> str:
    """The last part of a path, also behind a name and before `#columns`; every other text as it is."""
    if "://" in value and not value.startswith("file:"):
        return scrub(value)
    for source in ("local-dir:", "file:"):
        if value.startswith(source):
            return source + public_path(value.removeprefix(source))
    place, mark, columns = value.partition("#")
    return PATH.sub(_last_part, place) + mark + re.split(r"[/\\]", columns)[-1]


def public_words(text: str) -> str:
    """A sentence with the paths in it shortened."""
    return IN_WORDS.sub(_last_part, text)


def _last_part(path: re.Match[str]) -> str:
    parts = [part for part in re.split(r"[/\\]", path[0]) if part.strip(".~")]
    return parts[-1] if parts and not re.fullmatch("[A-Za-z]:", parts[-1]) else "folder"


def hide_paths(path: Path) -> None:
    """Shorten the paths in a recipe.toml. Raises StagingError if it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        recipe = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StagingError(f"{path.name} is not valid TOML ({error}); a release brings its recipe") from None
    notes = "".join(takewhile(lambda line: line.startswith("#"), text.splitlines(keepends=True)))
    if (public(recipe), public_words(notes)) != (recipe, notes):
        path.write_text(public_words(notes) + dump_toml(public(recipe)), encoding="utf-8")
