"""Training for real, small: the quickstart, image folders, and every mistake that a user can make."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from shapes import PICTURES, TINY, draw_shapes, rows

import zoo
from zoo.cli import main
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train

ROOT = Path(zoo.__file__).parents[1]
QUICKSTART = ROOT / "configs" / "quickstart.toml"


def test_quickstart_word_for_word(tmp_path: Path) -> None:
    command = [Path(sys.executable).with_name("zoo"), "train", QUICKSTART]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "quickstart"
    assert {path.name for path in run.iterdir()} - PICTURES == {"recipe.toml", "metrics.csv", "model", "report.html"}
    assert float(done.stdout.split("top-1 ")[1].split(" %")[0]) >= 97
    assert len(rows(run)) == 12
    assert list(rows(run)[0]) == [
        "epoch",
        "lr",
        "train_loss",
        "val_loss",
        "val_top1",
        "val_top5",
        "images_per_second",
        "seconds",
        "peak_memory_mib",
    ]
    # The two lines that it prints, in a process of their own.
    lines = [line.strip() for line in done.stdout.splitlines() if line.startswith("    ")]
    code = "\n".join([*lines, "print(model.num_classes, model.pretrained_cfg['label_names'])"])
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert loaded.stdout.startswith("10 ") and loaded.stderr == ""


def test_the_model_directory_is_the_trained_network(tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "data")
    run = train(replace(TINY, data=str(data), epochs=15, ema_decay=0.9), tmp_path / "run")
    assert run.score.top1 >= 85, "it must learn"
    model = timm.create_model(f"local-dir:{run.directory / 'model'}", pretrained=True)
    saved = load_file(run.directory / "model" / "model.safetensors")
    assert all(torch.equal(value, saved[key]) for key, value in model.state_dict().items())
    assert model.pretrained_cfg["label_names"] == ["cross", "disc"]
    assert timm.data.resolve_data_config(model=model)["input_size"] == (3, 16, 16)
    assert not list(run.directory.rglob(".*")), "temporary files left"
    facts = json.loads((run.directory / "model" / "config.json").read_text())["zoo"]
    assert facts["result"]["top1"] == run.score.top1 and facts["result"]["n"] == 48
    assert facts["recipe"]["model"] == TINY.model


def test_same_seed_same_weights_and_resolved_recipe_repeats(tmp_path: Path) -> None:
    recipe = replace(TINY, data=str(draw_shapes(tmp_path / "data", count=10)), epochs=2)
    first = train(recipe, tmp_path / "1")
    again = train(load_recipe(tmp_path / "1" / "recipe.toml"), tmp_path / "2")
    other = train(replace(recipe, seed=1), tmp_path / "3")
    weights = [load_file(run.directory / "model" / "model.safetensors") for run in (first, again, other)]
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert not torch.equal(weights[0]["fc.weight"], weights[2]["fc.weight"])


def test_any_timm_model_and_optimizer(tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "data", count=10)
    recipe = replace(TINY, data=str(data), model="mobilenetv3_small_050", epochs=1, warmup_epochs=0.0, image_size=32)
    run = train(replace(recipe, optimizer="sgd", drop_path=0.1, model_kwargs={"pad_type": "same"}), tmp_path / "run")
    model = timm.create_model(f"local-dir:{run.directory / 'model'}", pretrained=True)
    assert model.conv_stem.padding == (0, 0), "what shaped the network is in config.json"
    switches = replace(TINY, data=str(data), epochs=1, warmup_epochs=0.0, attn_kwargs={"reduction": 4})
    small = timm.create_model(f"local-dir:{train(switches, tmp_path / 'small').directory / 'model'}", pretrained=True)
    assert small.layer1[0].se.channel.fc1.weight.shape[0] == 4


@pytest.mark.every
def test_what_makes_training_fast(tmp_path: Path) -> None:
    """bf16, channels_last, gradient clipping, growing images, a table for TensorBoard."""
    data = draw_shapes(tmp_path / "data", count=10, size=40)
    recipe = replace(TINY, data=str(data), epochs=3, batch_size=10, image_size=64, start_size=32, crop_scale=0.5)
    run = train(replace(recipe, amp="bf16", channels_last=True, clip_grad=0.5, seed=3), tmp_path / "run")
    assert run.epochs[-1].train_loss < 1 and run.epochs[-1].peak_memory_mib > 100
    model = timm.create_model(f"local-dir:{run.directory / 'model'}", pretrained=True)
    assert model.conv1.weight.is_contiguous() and timm.data.resolve_data_config(model=model)["input_size"][-1] == 64
    pytest.importorskip("tensorboard")
    train(replace(TINY, data=str(data), epochs=1, warmup_epochs=0.0, tracker="tensorboard"), tmp_path / "board")
    assert list((tmp_path / "board" / "tensorboard").glob("events.*"))


@pytest.mark.every
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_student_and_teacher_compiled(tmp_path: Path) -> None:
    """The loss of the first update is that of the same run as it is."""
    data = draw_shapes(tmp_path / "data", count=4)
    short = replace(TINY, data=str(data), epochs=1, warmup_epochs=0.0, batch_size=8)
    teacher = train(short, tmp_path / "teacher").directory
    taught = replace(short, teacher=str(teacher))
    losses = [train(replace(taught, compile=on), tmp_path / f"{on}").epochs[0].train_loss for on in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def spoil_nothing(root: Path) -> None:
    pass


def truncate(root: Path) -> None:
    image = root / "train" / "disc" / "3.png"
    image.write_bytes(image.read_bytes()[:60])


def empty_class(root: Path) -> None:
    for image in (root / "train" / "disc").iterdir():
        image.unlink()


def one_class(root: Path) -> None:
    empty_class(root)
    (root / "train" / "disc").rmdir()


def empty_val_class(root: Path) -> None:
    for image in (root / "val" / "disc").iterdir():
        image.unlink()


def rename_val_class(root: Path) -> None:
    (root / "val" / "disc").rename(root / "val" / "ring")


@pytest.mark.parametrize(
    ("spoil", "override", "says"),
    [
        (spoil_nothing, "model=cbam_resnet5", "unknown model 'cbam_resnet5'; did you mean cbam_resnet"),
        (spoil_nothing, "modle=x", "unknown key 'modle'; did you mean 'model'?"),
        (spoil_nothing, "data=/nowhere", "there is no data '/nowhere'; give digits, planted, a folder"),
        (spoil_nothing, "attn_kwargs={reduction = 0}", "reduction must be a whole number of at least 1, not 0"),
        (spoil_nothing, "attn_kwargs={kernel_size = 4}", "kernel_size must be an odd whole number"),
        (spoil_nothing, "attn_kwargs={kernel = 3}", "unknown key 'kernel'; CBAM takes reduction=16, kernel_size=7"),
        (spoil_nothing, "optimizer=sdg", "unknown optimizer 'sdg'"),
        (spoil_nothing, "device=gpu", "device 'gpu' cannot be used here"),
        (spoil_nothing, "batch_size=512", "batch_size 512 is more than the 20 training images"),
        (truncate, "workers=0", "3.png"),
        (truncate, "workers=1", "3.png"),
        (empty_class, "seed=1", "class folders without an image: disc"),
        (one_class, "seed=1", "one class only, 'cross'"),
        (empty_val_class, "seed=1", "val has class folders without an image: disc; fill or remove them"),
        (rename_val_class, "seed=1", "has classes that"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    spoil: object, override: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(draw_shapes(tmp_path / "data", count=10))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'model = "cbam_resnet20_cifar"\ndata = "{tmp_path / "data"}"\nepochs = 2\nbatch_size = 10\n'
        'image_size = 16\nworkers = 0\ndevice = "cpu"\n'
    )
    assert main(["train", str(recipe), "--out", str(tmp_path / "run"), "--set", override]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line]
    opening = 5 if spoil is truncate else 0  # images are read when the run has said what it does
    assert len(lines) <= 2 + opening and says in lines[-1] and lines[-1].startswith("zoo: "), lines
    assert not (tmp_path / "run").exists()


def test_a_loss_that_explodes_stops_with_what_was_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = draw_shapes(tmp_path / "data", count=10)
    run = tmp_path / "run"
    with pytest.raises(
        FloatingPointError, match=r"after \d updates \(epoch 1\).*--set lr=1e\+17 goes on from the beginning"
    ):
        train(replace(TINY, data=str(data), lr=1e18, warmup_epochs=0.0), run)
    state = torch.load(run / "not_finite.pt", weights_only=True)
    assert state["step"] < 5 and "layer1.0.conv1.weight" in state["model"]
    left = {path.name for path in run.iterdir()} - PICTURES
    assert left == {"recipe.toml", "metrics.csv", "split.csv", "not_finite.pt"}

    # With a checkpoint from before, the run goes on from it, at a lower rate.
    run = tmp_path / "later"
    recipe = replace(TINY, data=str(data), lr=1e18, warmup_epochs=1.5, epochs=3, checkpoint_minutes=0.0)
    with pytest.raises(FloatingPointError, match="--resume"):
        train(replace(recipe, warmup_epochs=0.0, optimizer="sgd"), run)
    assert main(["train", "--resume", str(run), "--set", "lr=0.001", "--set", "model=resnet18"]) == 2
    assert "cannot go on with another model" in capfd.readouterr().err


def test_training_starts_from_a_file_or_refuses_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = draw_shapes(tmp_path / "data", count=10)
    plain, other = tmp_path / "plain.safetensors", tmp_path / "other.safetensors"
    backbone = timm.create_model("resnet20_cifar")
    save_file(backbone.state_dict(), plain)
    save_file(timm.create_model("resnet56_cifar").state_dict(), other)
    recipe = replace(TINY, data=str(data), epochs=1, warmup_epochs=0.0, lr=0.0, weights=str(plain))
    run = train(recipe, tmp_path / "run")
    trained = load_file(run.directory / "model" / "model.safetensors")
    assert torch.equal(trained["layer1.0.conv1.weight"], backbone.state_dict()["layer1.0.conv1.weight"])
    capfd.readouterr()

    for weights, says in (
        (other, "fit neither cbam_resnet20_cifar nor its plain backbone"),
        ("no", "no file of weights"),
    ):
        settings = ["--set", f"data={data}", "--set", f"weights={weights}", "--out", str(tmp_path / "refused")]
        assert main(["train", str(QUICKSTART), *settings]) == 2
        assert says in (said := capfd.readouterr().err) and len(said.strip().splitlines()) == 1
        assert not (tmp_path / "refused").exists()


def test_a_run_is_never_overwritten(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    assert main(["train", str(QUICKSTART), "--out", str(tmp_path)]) == 2
    assert "is there already" in capfd.readouterr().err
    assert main(["train", str(QUICKSTART), "--out", str(tmp_path / "kept.txt")]) == 2
    assert (tmp_path / "kept.txt").read_text() == "mine"


def test_list(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "bam_resnet*_cifar"]) == 0
    assert "bam_resnet20_cifar" in capfd.readouterr().out.split()
    assert main(["list", "bom_*"]) == 2
    assert "no model of the zoo matches 'bom_*'" in capfd.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2
