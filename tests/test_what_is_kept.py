"""Which epoch's weights a run kept, and of which network they are, said everywhere where the run is told of."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from hub_server import Hub
from safetensors.torch import load_file
from shapes import TINY, draw_shapes, rows

from zoo.cli import main
from zoo.release.comparison import compare
from zoo.release.publishable import StagingError
from zoo.release.run_card import write_run_card
from zoo.release.staging import stage
from zoo.report.page import write_report
from zoo.training.fine_tuning import finetune_recipe
from zoo.training.recipe import RecipeError
from zoo.training.recipe_file import dump_recipe, load_recipe
from zoo.training.run_directory import Outcome, kept_words
from zoo.training.start import train
from zoo.weights.hub_requests import HubError

QUICK = replace(TINY, epochs=1, warmup_epochs=0.0, batch_size=10)


@pytest.mark.parametrize(
    ("patience", "epochs", "trained", "kept", "words"),
    [
        (0, 8, 8, 8, "last epoch"),
        (0, 8, 6, 6, "last epoch; stopped early, 8 epochs were planned"),
        (3, 8, 8, 8, "epoch 8 of 8, the best on the validation part"),
        (3, 8, 8, 5, "epoch 5 of 8, the best on the validation part"),
        (3, 20, 8, 5, "epoch 5 of 8, the best on the validation part; stopped early, 20 epochs were planned"),
        (3, 20, 8, None, "one of 8 epochs, the best on the validation part; stopped early, 20 epochs were planned"),
    ],
)
def test_words(patience: int, epochs: int, trained: int, kept: int | None, words: str) -> None:
    result = {"epochs": trained, **({"kept_epoch": kept} if kept else {})}
    assert kept_words(result, {"patience": patience, "epochs": epochs}) == words


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run that learns nothing, so that it stops early and keeps an epoch before."""
    folder = tmp_path_factory.mktemp("stopped")
    data = draw_shapes(folder / "data", count=10)
    recipe = folder / "recipe.toml"
    recipe.write_text(dump_recipe(replace(QUICK, data=str(data), lr=0.0, epochs=20, patience=2)))
    return train(load_recipe(recipe), folder / "run")


def test_a_kept_epoch_is_said_everywhere(stopped: Outcome, tmp_path: Path) -> None:
    run, trained = stopped.directory, len(stopped.epochs)
    best = max(stopped.epochs, key=lambda row: (row.val_top1, -row.val_loss))
    assert stopped.kept_epoch == best.epoch == trained - 2 < 18
    assert stopped.score.loss == pytest.approx(best.val_loss), "the weights are that epoch's"
    words = f"epoch {best.epoch} of {trained}, the best on the validation part; stopped early, 20 epochs were planned"
    assert stopped.kept == words
    assert json.loads((run / "model" / "config.json").read_text())["zoo"]["result"]["kept_epoch"] == best.epoch
    card = write_run_card(run).read_text()
    assert f"), {words}, one seed (0)." in card and "last epoch" not in card
    assert f"seconds; kept: {words}.</p>" in write_report(run).read_text()
    release = (stage(run, tmp_path / "staged", "me/it").folder / "README.md").read_text()
    assert f"\n\nKept: {words}.\n" in release


@pytest.mark.every
def test_the_command_says_it_too(stopped: Outcome, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe, run = tmp_path / "recipe.toml", tmp_path / "run"
    recipe.write_text((stopped.directory / "recipe.toml").read_text())
    assert main(["train", str(recipe), "--out", str(run)]) == 0
    assert f"\nkept: {stopped.kept}\n" in capfd.readouterr().out
    assert main(["train", str(recipe), "--out", str(tmp_path / "last"), "--set", "patience=0"]) == 0
    assert "\nkept: last epoch\n" in capfd.readouterr().out


def test_a_run_that_went_on_with_other_values_says_so(stopped: Outcome, tmp_path: Path) -> None:
    """On the card of a release, in its recipe, and it is no seed of the recipe that others trained by."""
    other, run = (Path(shutil.copytree(stopped.directory, tmp_path / name)) for name in ("other", "run"))
    note = "Went on after update 6 (epoch 2) with lr = 0.0 (0.5 before)."
    config = json.loads((run / "model" / "config.json").read_text())
    config["zoo"]["result"]["changes"] = [note]
    (run / "model" / "config.json").write_text(json.dumps(config))
    (run / "recipe.toml").write_text(f"# {note}\n" + (run / "recipe.toml").read_text())
    staged = stage(run, tmp_path / "staged", "me/it").folder
    assert f"epochs were planned. {note}\n" in (staged / "README.md").read_text()
    assert (staged / "recipe.toml").read_text().startswith(f"# {note}\n"), "though its paths were shortened"
    theirs = json.loads((other / "model" / "config.json").read_text())
    theirs["zoo"]["recipe"] |= {"seed": 1}
    del theirs["zoo"]["recipe"]["by_order"]  # as in a run that was made before
    (other / "model" / "config.json").write_text(json.dumps(theirs))
    with pytest.raises(StagingError, match=f"one went on with other values: {note[:20]}"):
        compare(run, config, [other], [])
    assert compare(other, theirs, [stopped.directory], [])["top1_of_seeds"].keys() == {"1", "0"}


def test_training_from_a_folder_gives_a_model_that_loads(tmp_path: Path) -> None:
    """Its own architecture and switches go on; the name in the recipe is that of the folder."""
    data = draw_shapes(tmp_path / "data", count=8)
    small = replace(QUICK, model="mobilenetv3_small_050", image_size=32, model_kwargs={"pad_type": "same"})
    for name, first in (
        ("plain", replace(small, data=str(data))),
        ("gates", replace(QUICK, data=str(data), attn_kwargs={"reduction": 4, "neutral": False})),
    ):
        model = train(first, tmp_path / name).directory / "model"
        then = replace(first, model=f"local-dir:{model}", pretrained=True, lr=0.0, attn_kwargs={}, model_kwargs={})
        run = train(then, tmp_path / f"{name} again").directory
        config = json.loads((run / "model" / "config.json").read_text())
        before = json.loads((model / "config.json").read_text())
        assert config["architecture"] == first.model == before["architecture"]
        assert config["model_args"] == before["model_args"]
        again = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True)
        trained = load_file(model / "model.safetensors")
        for key, value in again.named_parameters():
            assert torch.equal(value, trained[key]), "started there, at a rate of 0"
        released = stage(run, tmp_path / f"{name} staged", "me/it").folder
        assert str(tmp_path) not in (released / "README.md").read_text() + (released / "recipe.toml").read_text()
        assert '"local-dir:model"' in (released / "recipe.toml").read_text()


def test_training_from_a_repository_gives_a_model_that_loads(hub: Hub, tmp_path: Path) -> None:
    """And so do weights from there, which are of the run's own classes."""
    data = draw_shapes(tmp_path / "data", count=8)
    first = train(replace(QUICK, data=str(data)), tmp_path / "first").directory / "model"
    hub.create("me/shapes")
    hub.commit("me/shapes", **{name: (first / name).read_bytes() for name in ("config.json", "model.safetensors")})
    still = replace(QUICK, data=str(data), lr=0.0)
    for name, then in (
        ("model", replace(still, model="hf-hub:me/shapes", pretrained=True)),
        ("weights", replace(still, weights="hf-hub:me/shapes")),
    ):
        run = train(then, tmp_path / name).directory
        again = timm.create_model(f"local-dir:{run / 'model'}", pretrained=True)
        assert again.pretrained_cfg["architecture"] == "cbam_resnet20_cifar"
        assert torch.equal(again.fc.weight, load_file(first / "model.safetensors")["fc.weight"]), "with its head"
    with pytest.raises(HubError, match="cannot load hf-hub:me/gone"):
        train(replace(still, model="hf-hub:me/gone", pretrained=True), tmp_path / "gone")


def test_fine_tuning_takes_a_folder_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = draw_shapes(tmp_path / "data", count=8)
    model = train(replace(QUICK, data=str(data)), tmp_path / "flowers").directory / "model"
    recipe = finetune_recipe(f"local-dir:{model}", str(data))
    assert recipe.pretrained and not recipe.weights
    monkeypatch.chdir(tmp_path)
    small = ["--epochs", "1", "--set", "warmup_epochs=0", "--set", "image_size=16", "--set", "workers=0"]
    assert main(["finetune", "local-dir:flowers/model", "data", *small]) == 0
    timm.create_model("local-dir:runs/flowers-data/model", pretrained=True)
    with pytest.raises(RecipeError, match=r"local-dir:.*gone: .*config.json"):
        train(replace(QUICK, data=str(data), model=f"local-dir:{tmp_path / 'gone'}"), tmp_path / "x")
    assert main(["train", "quickstart", "--set", f"model={model}", "--out", str(tmp_path / "x")]) == 2
    assert f"Use 'hf-hub:{model}'" in capfd.readouterr().err and not (tmp_path / "x").exists()
    assert len(rows(model.parent)) == 1
