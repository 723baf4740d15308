"""Recipes: every shipped file, and what a wrong one says."""

import pickle
import re
import tomllib
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import timm
import torch
from shapes import draw_shapes, draw_volumes
from timm.utils import ModelEmaV3

import zoo
from zoo.data.order import seed_all
from zoo.processes import World
from zoo.training.job import make_job
from zoo.training.loop import _step, fit, make_optimizer
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import dump_recipe, dump_toml, dump_value, load_recipe, make_recipe, parse_overrides
from zoo.training.start import open_training_data
from zoo.training.starting_model import create_model
from zoo.training.state import State
from zoo.training.watch import Watch

CONFIGS = sorted((Path(zoo.__file__).parents[1] / "configs").glob("*.toml"))
DEEP = re.compile("(?<!resnet20)_300|resnext29|resnet110")
"""Recipes that name what others name too, and take longer."""


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_shipped_recipes(path: Path) -> None:
    recipe = load_recipe(path)
    assert timm.is_model(recipe.model.split(".")[0])
    head = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert all(word in head for word in ("Command:", "Cost:", "Result:")), "a recipe begins with what, cost and result"


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.every] if DEEP.search(path.stem) else []) for path in CONFIGS],
)
def test_shipped_recipes_take_a_step(path: Path, tmp_path: Path) -> None:
    """All that a recipe names is there: one update of its own network, on four small images."""
    size = "[16, 16, 16]" if "volume" in path.stem else 16 if "cifar" in path.stem else 32
    small = ["epochs=1", "head_epochs=0", "batch_size=4", "accumulate=1", "workers=0", "device=cpu"]
    small += [
        f"image_size={size}",
        "start_size=0",
        "pretrained=false",
        "weights=",
        f"data={(draw_volumes if 'volume' in path.stem else draw_shapes)(tmp_path, count=2, size=32)}",
    ]
    recipe = load_recipe(path, small)
    world = World(torch.device("cpu"))
    model = create_model(recipe, "ab")
    job = make_job(recipe, open_training_data(recipe, world), model, world)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    ema = ModelEmaV3(model, decay=recipe.ema_decay) if recipe.ema_decay else None
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert recipe.warmup_epochs in (0.0, 0.25), "one epoch is not all warm-up"
    fit(job, state := State(model, ema, make_optimizer(model, recipe), scaler), Watch(job, tmp_path, 0))
    assert state.step == 1 and len(state.epochs) == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class Layer(torch.nn.Linear):
    """As a model of timm says what its layers are."""

    pretrained_cfg: ClassVar = {"classifier": "head"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": "^stem", "blocks": [("^weight", None)]}


@pytest.mark.filterwarnings("ignore:It is highly recommended to have .opt_einsum")
@pytest.mark.parametrize("optimizer", ["kron", "muon"])
def test_an_optimizer_draws_the_same_in_every_process(optimizer: str) -> None:
    """Where each has drawn something else before."""
    recipe, found = Recipe(model="", data="", optimizer=optimizer), list[torch.Tensor]()
    gradient = torch.randn(8, 8)
    for rank in range(2):
        layer = Layer(8, 8, bias=False)
        torch.nn.init.eye_(layer.weight)
        state = State(layer, None, make_optimizer(layer, recipe), torch.amp.GradScaler("cpu", enabled=False))
        for _ in range(4):
            layer.weight.grad = gradient.clone()
            seed_all("step", recipe.seed, state.step, rank)
            _step(state, recipe)
        found.append(layer.weight)
    assert torch.equal(*found) and not torch.equal(found[0], torch.eye(8))


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


def test_a_short_run_is_not_all_warm_up(tmp_path: Path) -> None:
    """Left out, the warm-up is an epoch or a quarter of the run; a file's own gives way to a run that is shorter."""
    plain = {"model": "resnet18", "data": "digits"}
    left_out = {epochs: make_recipe({**plain, "epochs": epochs}).warmup_epochs for epochs in (1, 2, 3, 4, 300)}
    assert left_out == {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0, 300: 1.0}
    assert make_recipe({**plain, "epochs": 2, "warmup_epochs": 1.5}).warmup_epochs == 1.5

    file = tmp_path / "recipe.toml"
    file.write_text('model = "resnet18"\ndata = "digits"\nepochs = 90\nwarmup_epochs = 5.0\n')
    asked = {epochs: load_recipe(file, [f"epochs={epochs}"]).warmup_epochs for epochs in (1, 5, 6)}
    assert asked == {1: 0.25, 5: 1.0, 6: 5.0}
    with pytest.raises(RecipeError, match=r"warmup_epochs 5.0 must be below epochs 3"):
        load_recipe(file, ["epochs=3", "warmup_epochs=5.0"])
    assert load_recipe(file, ["epochs=3", "warmup_epochs=2.5"]).warmup_epochs == 2.5


def test_wrong_files(tmp_path: Path) -> None:
    broken, empty = tmp_path / "broken.toml", tmp_path / "empty.toml"
    broken.write_text("model = ")
    empty.write_text("")
    for path, says in ((broken, "not valid TOML"), (empty, "'model' is missing"), (tmp_path / "no", "cannot read")):
        with pytest.raises(RecipeError, match=says):
            load_recipe(path)
    with pytest.raises(RecipeError, match="takes key=value, not 'lr'"):
        load_recipe(empty, ["lr"])


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"lr": NAN}, "lr must be a finite number, not nan"),
        ({"clip_grad": INF}, "clip_grad must be a finite number, not inf"),
        ({"decay_at": [1.0, NAN]}, "decay_at must be a list of finite numbers, not [1.0, nan]"),
        ({"epochs": NAN}, "epochs must be a whole number, not nan"),
        ({"image_size": [160, 0]}, "image_size must be a side, [H, W] or [D, H, W], not [160, 0]"),
        ({"image_size": [1.5, 2]}, "image_size must be a whole number, or several in brackets, not [1.5, 2]"),
        ({"image_size": NAN}, "image_size must be a whole number, or several in brackets, not nan"),
        ({"attn_kwargs": {"scale": NAN}}, "lists or tables, not scale = nan"),
        ({"mean": [0.5], "std": [0.0]}, "std must be a list of numbers, above 0, not [0.0]"),
        ({"layer_decay": 2.0}, "layer_decay must be above 0 and at most 1, not 2.0"),
        ({"label_smoothing": 1}, "label_smoothing must be at least 0 and below 1"),
        ({"lr": -1}, "lr must be at least 0, not -1"),
        ({"min_lr": 1.0}, "min_lr 1.0 must not be above lr 0.001"),
    ],
)
def test_wrong_values_in_every_way(values: dict[str, Any], says: str, tmp_path: Path) -> None:
    """The same one line from Python, from a file and from `--set`."""
    base = {"model": "resnet18", "data": "digits"}
    file = tmp_path / "recipe.toml"
    file.write_text(dump_toml(base | values))
    overrides = [f"{key}={dump_value(value)}" for key, value in values.items()]
    ways: tuple[Callable[[], Recipe], ...] = (
        lambda: make_recipe(base | values),
        lambda: Recipe(**(base | values)),
        lambda: replace(Recipe(**base), **values),
        lambda: load_recipe(file),
        lambda: make_recipe(base | parse_overrides(overrides)),
    )
    for way in ways:
        with pytest.raises(RecipeError) as error:
            way()
        assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"lr": None}, "lr must be a number, not None; leave it out for its default"),
        ({"model": None}, "model must be a text in quotes, not None"),
        ({"mean": None}, "mean must be a list in brackets, not None; leave it out for its default"),
        ({"attn_kwargs": None}, "attn_kwargs must be a table, not None; leave it out for its default"),
        ({"freeze": ["stem", None]}, "freeze must be a list of texts, not ['stem', None]"),
        ({"model_kwargs": {"norm": {"layer": [None]}}}, "lists or tables, not norm = {'layer': [None]}"),
        ({"schedule": None}, "unknown schedule None; choices are cosine"),
        ({"freeze": {"stem"}}, "freeze must be a list in brackets, not {'stem'}"),
        ({"model_kwargs": {"act_layer": torch.nn.ReLU}}, "lists or tables, not act_layer = <class"),
        ({"self": 1}, "unknown key 'self'; keys are model, data"),
    ],
)
def test_what_toml_has_not_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        Recipe(**({"model": "resnet18", "data": "digits"} | values))
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["device", "teacher", "epochs", "attn_kwargs", "image_size"])
def test_none_is_no_text(key: str) -> None:
    """`--set` takes texts without quotes, and nobody means a device that is called None."""
    with pytest.raises(RecipeError, match=f"{key} must be .*, not None; leave it out for its default"):
        parse_overrides([f"{key}=None"])


def test_a_misspelt_key_is_named_before_what_is_missing() -> None:
    with pytest.raises(RecipeError, match="unknown key 'modle'; did you mean 'model'"):
        make_recipe({"modle": "resnet18", "epochs": 0})
    with pytest.raises(RecipeError, match="epochs must be at least 1, not 0"):
        make_recipe({"model": "resnet18", "epochs": 0})
    with pytest.raises(RecipeError, match="'data' is missing; a recipe needs model and data"):
        make_recipe({"model": "resnet18"})


def test_a_recipe_is_a_frozen_dataclass() -> None:
    """Whole numbers become numbers and lists tuples, as the field has it."""
    switches = {"reduction": 8}
    given: dict[str, Any] = {"lr": 1, "mean": [0, 0.5, 1], "std": (1, 1, 1), "attn_kwargs": switches}
    recipe = Recipe(model="a", data="b", **given)
    assert type(recipe.lr) is float and recipe.mean == (0.0, 0.5, 1.0)
    assert list(asdict(recipe)) == [field.name for field in fields(Recipe)] == list(vars(recipe))
    assert replace(recipe, epochs=2).epochs == 2
    assert pickle.loads(pickle.dumps(recipe)) == recipe == make_recipe(vars(recipe))
    switches["reduction"] = 16
    assert recipe.attn_kwargs == {"reduction": 8}
    with pytest.raises(FrozenInstanceError):
        recipe.lr = 2.0  # type: ignore[misc]
