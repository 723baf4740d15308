"""Recipes as text: files by path or by name, `--set key=value`, TOML, the JSON schema, and a table to read.

`python -m zoo.training.recipe_file` prints the JSON schema, which configs/recipe.schema.json is.
"""

import dataclasses
import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_words import describe, schema_of, unknown_key, wrong_type

SHIPPED = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[2] / "configs")
"""Where recipes are that have a name: in an installed package, in a checkout."""


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe, by its path or by the name of a shipped one, and apply `key=value` texts. Raises RecipeError."""
    path = find_recipe(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror}; {_nearest(path.stem)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    changes = parse_overrides(overrides)
    if "epochs" in changes and _fills(values.get("warmup_epochs"), changes["epochs"]):
        del values["warmup_epochs"]  # of a longer run; unless it is given, too, the default takes its place
    try:
        return make_recipe(values | changes)
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from None


def _fills(warmup: Any, epochs: Any) -> bool:
    return all(isinstance(each, int | float) for each in (warmup, epochs)) and 0 < epochs <= warmup


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe: a path as it is, else a shipped recipe's by its bare name. Raises RecipeError."""
    path, name = Path(recipe), str(recipe)
    if path.is_file() or path.name != name or path.suffix:
        return path  # reading it says what is wrong with it, if anything is
    if name not in (shipped := shipped_recipes()):
        raise RecipeError(f"cannot read the recipe {name}: there is no such file; {_nearest(name)}")
    return shipped[name]


def shipped_recipes() -> dict[str, Path]:
    """Name -> file."""
    folder = next((folder for folder in SHIPPED if folder.is_dir()), None)
    return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}


def _nearest(name: str) -> str:
    shipped = list(shipped_recipes())
    near = difflib.get_close_matches(name, shipped, 1)
    return f"did you mean the zoo's own {near[0]!r}?" if near else f"the zoo's own are {', '.join(shipped)}"


def make_recipe(values: Mapping[str, Any]) -> Recipe:
    """A recipe of plain values. Raises RecipeError."""
    return Recipe(**values)


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """The values of `key=value` texts: as a file would have them, but texts need no quotes. Raises RecipeError."""
    values = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set takes key=value, not {override!r}")
        values[key] = _parse(key, text)
    return values


def _parse(key: str, text: str) -> Any:
    fields = schema_of(Recipe)["properties"]
    if key not in fields:
        raise RecipeError(unknown_key(Recipe, key))
    if text == "None":
        raise RecipeError(wrong_type(Recipe, key, None))
    kinds = [kind.get("type") for kind in fields[key].get("anyOf", (fields[key],))]
    if kinds == ["string"]:
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        if "string" in kinds and not text.startswith("["):
            return text
        raise RecipeError(wrong_type(Recipe, key, text)) from None


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, every field resolved."""
    return dump_toml(dataclasses.asdict(recipe))


def dump_toml(values: Mapping[str, Any]) -> str:
    """Any table as TOML."""
    return tomli_w.dumps(values)


def dump_value(value: Any) -> str:
    """A single value as TOML, tables in braces, as `--set key=VALUE` takes it."""
    listed = tomli_w.dumps({"list": [0, value]})  # tables are written in braces inside a list only
    return listed.partition("0,\n")[2].rpartition(",\n]")[0].strip()


def recipe_schema() -> str:
    """The JSON schema of a recipe, by which editors complete and check a file that names it in `#:schema`."""
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", **schema_of(Recipe)}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class RecipeField(NamedTuple):
    """What a reader needs to know of a field."""

    name: str
    type: str
    """In words, with its bounds."""
    default: str
    """As TOML has it, or `required`."""
    meaning: str


def recipe_fields() -> list[RecipeField]:
    """All fields, in the order of the class."""
    described = schema_of(Recipe)["properties"]
    return [
        RecipeField(field.name, describe(described[field.name]), _default(field), described[field.name]["description"])
        for field in dataclasses.fields(Recipe)
    ]


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default_factory is not dataclasses.MISSING:
        return dump_value(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else dump_value(field.default)


GROUPS = {
    "model": "What is trained",
    "epochs": "How long, and on what size",
    "optimizer": "Optimizer and its rates",
    "loss": "Loss and regularization",
    "crop_scale": "Augmentation",
    "amp": "Speed and loading",
    "val_fraction": "What is held out, kept and written",
}
"""First field of a group -> its heading."""


def recipe_table() -> str:
    """Every field with type, default and meaning, in columns, at most 99 characters wide."""
    lines = []
    for field in recipe_fields():
        if field.name in GROUPS:
            lines += ["", GROUPS[field.name], ""]
        cells = ([field.name], [field.default], _wrapped(field.type, 26), _wrapped(field.meaning, 39))
        for row in zip_longest(*cells, fillvalue=""):
            lines.append("  {:<20}{:<10}{:<28}{}".format(*row).rstrip())
    return "\n".join(lines[1:]) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)


if __name__ == "__main__":
    print(recipe_schema(), end="")
