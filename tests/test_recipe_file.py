"""Recipes as text: by name, in TOML, from older runs, against the schema, and as the table of `zoo recipe`."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import zoo
from zoo.training import recipe_file
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import (
    GROUPS,
    dump_recipe,
    dump_toml,
    dump_value,
    find_recipe,
    load_recipe,
    parse_overrides,
    recipe_fields,
    recipe_schema,
    recipe_table,
)

CONFIGS = Path(zoo.__file__).parents[1] / "configs"
SCHEMA = json.loads((CONFIGS / "recipe.schema.json").read_text(encoding="utf-8"))


def test_recipes_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart", ["epochs=3"]).epochs == 3
    assert find_recipe("quickstart") == find_recipe(CONFIGS / "quickstart.toml") == CONFIGS / "quickstart.toml"
    for path in ("quickstart.toml", "mine/quickstart", tmp_path / "quickstart"):
        with pytest.raises(RecipeError, match=r"cannot read the recipe .*quickstart.*: No such file or directory; did"):
            load_recipe(path)
    Path("quickstart").write_text('model = "mine"\ndata = "digits"\n')
    assert load_recipe("quickstart").model == "mine", "a file that is there comes first"


def test_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="recipe quikstart: there is no such file; did you mean the zoo's own 'quick"):
        load_recipe("quikstart")
    with pytest.raises(RecipeError, match=r"recipe xyz: there is no such file; the zoo's own are cifar100_.*, volumes"):
        load_recipe("xyz")


def test_an_installed_package_has_its_own_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "short.toml").write_text('model = "installed"\ndata = "digits"\n')
    monkeypatch.setattr(recipe_file, "SHIPPED", (tmp_path, CONFIGS))
    assert load_recipe("short").model == "installed"
    with pytest.raises(RecipeError, match="the zoo's own are short"):
        load_recipe("quickstart")


ODD = [
    "",
    "a b",
    'odd "name"',
    "back\\slash",
    "é ü 漢",
    "two\nlines",
    "tab\tand\x7f",
    "'",
    "# no comment",
    "0,\n",
    ",\n]",
]


@pytest.mark.parametrize(
    "value",
    [
        {"reduction": 8, "bias": False, "rate": 1e-5},
        {text: text for text in ODD},
        {"deep": {"er": {"list": [1, [2.5, "x"], {"a": [{}]}], "none": []}}},
    ],
)
def test_tables_survive_as_text(value: dict[str, Any], tmp_path: Path) -> None:
    """In a file, and by `--set`."""
    recipe = Recipe(model="a", data="b", attn_kwargs=value)
    path = tmp_path / "recipe.toml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert parse_overrides([f"attn_kwargs={dump_value(value)}"]) == {"attn_kwargs": value}


def test_single_values_as_text() -> None:
    values = {
        "lr": 1e-5,
        "epochs": 3,
        "pretrained": True,
        "mean": [0.5],
        "freeze": ["a]", "b,\n"],
        "image_size": [8, 9],
    }
    assert parse_overrides([f"{key}={dump_value(value)}" for key, value in values.items()]) == values
    assert parse_overrides(["where=blocks", 'where="stages"'])["where"] == "stages"
    assert parse_overrides(["where=layer?.*"]) == {"where": "layer?.*"}
    assert parse_overrides(['where=["layer1", "layer2"]']) == {"where": ["layer1", "layer2"]}
    assert (
        dump_value("a") == '"a"' and dump_value({}) == "{}" and dump_value({"place": "after"}) == '{ place = "after" }'
    )


def test_recipes_of_older_runs_load(tmp_path: Path) -> None:
    """They were written in other words: tables in braces, lists on one line."""
    recipe = Recipe(model="a", data="é", attn_kwargs={"reduction": 8}, mean=(0.5,), std=(0.25,))
    rest = dump_toml({k: v for k, v in vars(recipe).items() if k not in ("attn_kwargs", "model_kwargs", "mean", "std")})
    old = rest + "attn_kwargs = {reduction = 8}\nmodel_kwargs = {}\nmean = [0.5]\nstd = [0.25]\n"
    path = tmp_path / "recipe.toml"
    path.write_text(old, encoding="utf-8")
    assert load_recipe(path) == recipe
    assert tomllib.loads(dump_recipe(recipe)) == tomllib.loads(old)


def test_the_schema_is_up_to_date() -> None:
    told = "python -m zoo.training.recipe_file > configs/recipe.schema.json"
    assert (CONFIGS / "recipe.schema.json").read_text(encoding="utf-8") == recipe_schema(), told
    assert all(field["description"] for field in SCHEMA["properties"].values())


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_schema_takes_every_shipped_recipe(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#:schema recipe.schema.json\n"), "by which editors complete a recipe"
    jsonschema.validate(tomllib.loads(text), SCHEMA)
    jsonschema.validate(tomllib.loads(dump_recipe(load_recipe(path))), SCHEMA)


@pytest.mark.parametrize(
    "values",
    [
        {"wieght_decay": 0.1},
        {"epochs": 0},
        {"epochs": "ten"},
        {"hflip": 2.0},
        {"val_fraction": 1.0},
        {"schedule": "cosinus"},
        {"image_size": [160]},
        {"image_size": [160, 0]},
        {"freeze": [1]},
        {"attn_kwargs": 8},
        {"model": 1},
    ],
)
def test_the_schema_refuses_what_a_recipe_refuses(values: dict[str, Any]) -> None:
    wrong = {"model": "resnet18", "data": "digits"} | values
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, SCHEMA)
    with pytest.raises(RecipeError):
        Recipe(**wrong)


def test_the_table_has_every_field() -> None:
    names, table = list(SCHEMA["properties"]), recipe_table().splitlines()
    assert [field.name for field in recipe_fields()] == names
    assert [line.split()[0] for line in table if line[:2] == "  " and line[2:3] != " "] == names
    assert [name for name in names if name in GROUPS] == list(GROUPS)
    assert set(GROUPS.values()) == {line for line in table if line and line[0] != " "}
    assert max(map(len, table)) < 100
    (row,) = (field for field in recipe_fields() if field.name == "lr")
    assert row == ("lr", "a number, at least 0", "0.001", "Peak learning rate.")


def test_the_table_needs_no_torch() -> None:
    """`zoo recipe` and the help of the command line answer at once."""
    code = "import sys, zoo.training.recipe_file as recipe_file; recipe_file.recipe_table(); "
    code += "sys.exit(bool({'torch', 'timm'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
