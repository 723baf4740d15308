"""Recipes: every shipped file, and what a wrong one says."""

import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
import timm
import torch
from shapes import draw_shapes, draw_volumes
from timm.utils import ModelEmaV3

import zoo
from zoo.processes import World
from zoo.training.job import create_model, make_job, open_training_data
from zoo.training.recipe import Recipe, RecipeError, dump_recipe, load_recipe, make_recipe
from zoo.training.start import State, Watch, fit, make_optimizer

CONFIGS = sorted((Path(zoo.__file__).parents[1] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_shipped_recipes(path: Path) -> None:
    recipe = load_recipe(path)
    assert timm.is_model(recipe.model.split(".")[0])
    head = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert all(word in head for word in ("Command:", "Cost:", "Result:")), "a recipe begins with what, cost and result"


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_shipped_recipes_take_a_step(path: Path, tmp_path: Path) -> None:
    """All that a recipe names is there: one update of its own network, on four small images."""
    size = "[16, 16, 16]" if "volume" in path.stem else 16 if "cifar" in path.stem else 32
    small = ["epochs=1", "warmup_epochs=0", "head_epochs=0", "batch_size=4", "accumulate=1", "workers=0", "device=cpu"]
    small += [
        f"image_size={size}",
        "start_size=0",
        "pretrained=false",
        "weights=",
        f"data={(draw_volumes if 'volume' in path.stem else draw_shapes)(tmp_path, count=2, size=32)}",
    ]
    recipe = load_recipe(path, small)
    world = World(torch.device("cpu"))
    model = create_model(recipe, 2)
    job = make_job(recipe, open_training_data(recipe, world), model, world)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    ema = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    fit(job, state := State(model, ema, make_optimizer(model, recipe), scaler), Watch(job, tmp_path / "run", 0))
    assert state.step == 1 and len(state.epochs) == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_dump_and_load_agree(tmp_path: Path) -> None:
    switches = {"reduction": 8, "bias": False}
    recipe = Recipe(model='odd "name" \\ é', data="digits", lr=1e-5, attn_kwargs=switches, freeze=("stem", "layer1"))
    path = tmp_path / "recipe.toml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert tomllib.loads(dump_recipe(recipe)) == asdict(recipe) | {
        "freeze": ["stem", "layer1"],
        "mean": [],
        "std": [],
        "decay_at": [],
    }


def test_overrides(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('model = "a"\ndata = "digits"\n')
    recipe = load_recipe(path, ["model=b", "lr=1e-2", "epochs=3", "pretrained=true", "attn_kwargs={reduction = 4}"])
    assert (recipe.model, recipe.lr, recipe.epochs, recipe.pretrained) == ("b", 1e-2, 3, True)
    assert recipe.attn_kwargs == {"reduction": 4}
    assert load_recipe(path, ["lr=1"]).lr == 1.0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"wieght_decay": 0.1}, "unknown key 'wieght_decay'; did you mean 'weight_decay'?"),
        ({"qqq": 1}, "unknown key 'qqq'; keys are model, data"),
        ({"epochs": "ten"}, "epochs must be a whole number, not 'ten'"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"pretrained": 1}, "pretrained must be true or false, not 1"),
        ({"lr": True}, "lr must be a number, not True"),
        ({"attn_kwargs": 8}, "attn_kwargs must be a table"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"hflip": 2.0}, "hflip must be between 0 and 1"),
        ({"warmup_epochs": 30.0}, "warmup_epochs 30.0 must be below epochs 30"),
        ({"min_lr": 1.0}, "min_lr 1.0 must not be above lr"),
        ({"val_fraction": 1.0}, "val_fraction must leave images"),
        ({"schedule": "cosinus"}, "unknown schedule 'cosinus'; choices are cosine, one-cycle, step, wsd, constant"),
        ({"amp": "fp8"}, "unknown amp 'fp8'; choices are off, bf16, fp16"),
        ({"freeze": "stem"}, "freeze must be a list in brackets"),
        ({"freeze": [1]}, "freeze must be a list of texts, not [1]"),
        ({"mean": [0.5]}, "mean [0.5] and std [] must both have a number a channel"),
        ({"accumulate": 3}, "batch_size 128 must be a multiple of accumulate 3"),
        ({"temperature": 0.0}, "temperature must be above 0"),
    ],
)
def test_wrong_values(values: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        make_recipe({"model": "resnet18", "data": "digits", **values})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_wrong_files(tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.toml", tmp_path / "empty.toml"
    broken.write_text("model = ")
    empty.write_text("")
    for path, says in ((broken, "not valid TOML"), (empty, "'model' is missing"), (tmp_path / "no", "cannot read")):
        with pytest.raises(RecipeError, match=says):
            load_recipe(path)
    with pytest.raises(RecipeError, match="takes key=value, not 'lr'"):
        load_recipe(empty, ["lr"])
