"""zoo finetune: from a folder to a model by one command, and its recipe repeats it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from shapes import TINY, draw_shapes, rows
from test_resume import same

from zoo.cli import main
from zoo.models.plain_network import NoPlainNetworkError, plain_network
from zoo.training.fine_tuning import finetune_recipe
from zoo.training.recipe import RecipeError
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train

SMALL = ["--set", "image_size=16", "--set", "workers=0", "--set", "device=cpu", "--set", "crop_scale=0.8"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain network trained on the digits' first classes, as weights to start from."""
    folder = tmp_path_factory.mktemp("pretrained")
    recipe = replace(TINY, model="resnet20_cifar", data="digits", epochs=1, warmup_epochs=0.0, batch_size=64)
    return train(replace(recipe, mean=(0.3,) * 3, std=(0.2,) * 3), folder / "run").directory


def test_from_a_folder_to_a_model(pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = draw_shapes(tmp_path / "photos", ("train", "test"), count=20)
    out = tmp_path / "run"
    command = ["finetune", "cbam_resnet20_cifar", str(data), "--weights", str(pretrained), "--epochs", "12", *SMALL]
    assert main([*command, "--out", str(out)]) == 0
    said = capfd.readouterr().out
    assert "n = 40 held out (test/ of the folder)" in said
    recipe = load_recipe(out / "recipe.toml")
    assert (recipe.head_epochs, recipe.patience, recipe.batch_size) == (1, 0, 10)
    assert len((out / "split.csv").read_text().splitlines()) == 1 + 40 + 40, "the test part is listed too"
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["label_names"] == ["cross", "disc"] and config["num_classes"] == 2
    seen = timm.data.resolve_data_config(model=timm.create_model(f"local-dir:{out / 'model'}", pretrained=True))
    assert (*seen["mean"], *seen["std"]) == (0.3, 0.3, 0.3, 0.2, 0.2, 0.2), "pixels as the weights were trained with"
    last = rows(out)[-1]
    assert len(rows(out)) == 12 and float(last["lr"]) < 0.01 * recipe.lr, "to the end, where the rate has come down"

    # The resolved recipe is all that it takes to repeat the run.
    again = train(recipe, tmp_path / "again")
    assert same(out, again.directory) and f"top-1 {again.score.top1:.2f} %" in said


@pytest.mark.parametrize(
    "model", [["cbam_resnet20_cifar"], pytest.param(["resnet20_cifar", "--attention", "cbam"], marks=pytest.mark.every)]
)
def test_the_plain_network_beside_it(
    model: list[str], pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data, out = draw_shapes(tmp_path / "photos", count=10), tmp_path / "run"
    command = ["finetune", *model[:1], str(data), *model[1:], "--weights", str(pretrained), "--epochs", "1", *SMALL]
    assert main([*command, "--out", str(out), "--baseline"]) == 0
    said = capfd.readouterr().out
    assert "Baseline resnet20_cifar: " in said and "points of one run, whose spread nobody knows." in said
    ours, plain = (load_recipe(place / "recipe.toml") for place in (out, tmp_path / "run-plain"))
    without = replace(ours, model="resnet20_cifar", attention="", where="stages", attn_kwargs={})
    assert plain == without, "but for the attention it is the same recipe"
    assert "Baseline resnet20_cifar: " in (out / "baseline.html").read_text()


@pytest.mark.parametrize(
    ("model", "weights", "plain"),
    [
        ("cbam_resnet50", "", "resnet50.a1_in1k"),
        ("bam_mul_resnet18", "my.pt", "resnet18"),
        ("se_mobilenetv2_050.warm_lamb_in1k", "", "mobilenetv2_050.lamb_in1k"),
        ("resnet18", "", "resnet18 is no model of the zoo with attention"),
        ("cbam_resnet20_cifar", "", "are not those of resnet20_cifar; give --weights FILE of the plain network, from"),
    ],
)
def test_which_plain_network(model: str, weights: str, plain: str) -> None:
    try:
        found = plain_network(model, weights)
    except NoPlainNetworkError as error:
        found = str(error)
    assert found == plain or (" " in plain and plain in found)


def test_eval_says_what_the_run_said(
    pretrained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The front page's lines, on photos that nobody split: 8 of 40 images are held out, and eval measures on these."""
    monkeypatch.chdir(tmp_path)
    draw_shapes(tmp_path / "photos", parts=["."], count=20)
    command = ["finetune", "cbam_resnet20_cifar", "photos", "--weights", str(pretrained), "--epochs", "3"]
    assert main([*command, *SMALL]) == 0
    result = re.search(r"top-1 .* %, top-5 .* %, n = 8 held out \((.*)\)", capfd.readouterr().out)
    assert result and result[1] == "a stratified 8 of 40 images, the same for every training seed"
    for options in ([], ["--part", "val"]):
        assert main(["eval", "runs/cbam_resnet20_cifar-photos", "photos", *options]) == 0
        said = capfd.readouterr().out
        assert said.startswith(result[0].partition(", n")[0])
        assert f"n = 8 ({result[1]}, held out by the run)" in said


@pytest.mark.parametrize(("count", "batch_size", "epochs"), [(6, 3, 40), (40, 16, 40), (300, 32, 27)])
def test_recipes_by_the_size_of_the_set(count: int, batch_size: int, epochs: int, tmp_path: Path) -> None:
    data = draw_shapes(tmp_path, ("train", "val"), count=count)
    recipe = finetune_recipe("cbam_resnet20_cifar", str(data), weights="somewhere")
    assert (recipe.batch_size, recipe.epochs) == (batch_size, epochs)
    assert recipe.weights == "somewhere" and not recipe.pretrained
    chosen = finetune_recipe("cbam_resnet50", str(data), epochs=2, overrides=["lr=0.5", "patience=3"])
    assert (chosen.epochs, chosen.lr, chosen.patience, chosen.pretrained) == (2, 0.5, 3, True)
    assert (chosen.head_epochs, recipe.head_epochs) == (0, epochs // 8)
    longer = finetune_recipe("cbam_resnet50", str(data), epochs=100, overrides=["warmup_epochs=35"])
    assert (longer.epochs, longer.warmup_epochs) == (100, 35)
    attached = finetune_recipe("resnet18", str(data), attention="cbam", overrides=["where=blocks"])
    assert (attached.attention, attached.where) == ("cbam", "blocks")


def test_no_weights_to_start_from(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = draw_shapes(tmp_path / "photos", count=4)
    with pytest.raises(RecipeError, match="cbam_resnet110_cifar has no weights to start from; set weights to a file"):
        finetune_recipe("cbam_resnet110_cifar", str(data))
    assert (
        main(["finetune", "cbam_resnet20_cifar", str(data), "--weights", "gone.pt", "--out", str(tmp_path / "x")]) == 2
    )
    assert "there is no file of weights gone.pt, no run and no model folder" in capfd.readouterr().err
    assert not (tmp_path / "x").exists()
