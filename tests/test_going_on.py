"""What a run that goes on may change, and that it keeps its split and its classes whatever the data does."""

import csv
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shapes import TINY, draw_shapes, rows
from test_resume import same

from zoo.cli import main
from zoo.data import DataError
from zoo.data.listing import read_listing, write_listing
from zoo.errors import Interrupted
from zoo.training.checkpoint import load_checkpoint, save_checkpoint
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import dump_recipe, load_recipe
from zoo.training.run_directory import read_result
from zoo.training.start import MAY_CHANGE, resume, train

STEADY = replace(TINY, epochs=4, batch_size=10, checkpoint_minutes=0.0, warmup_epochs=0.0)


def interrupted(recipe: Recipe, run: Path, step: int = 5) -> Path:
    """A run that gets a signal when the checkpoint of this update is written, and stops after the next one."""

    def save(directory: Path, now: int, state: dict[str, Any]) -> None:
        save_checkpoint(directory, now, state)
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("zoo.training.keeper.save_checkpoint", save)
        train(recipe, run)
    return run


@pytest.fixture(scope="module")
def halfway(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """60 photos that nobody split, 4 updates an epoch, and a run stopped in the second of its 4 epochs."""
    folder = tmp_path_factory.mktemp("halfway")
    photos = draw_shapes(folder / "photos", parts=["."], count=30)
    recipe = replace(STEADY, data=str(photos))
    return recipe, interrupted(recipe, folder / "run")


@pytest.fixture(scope="module")
def whole(halfway: tuple[Recipe, Path]) -> Path:
    """The same run as it ends without a change."""
    copy = Path(shutil.copytree(halfway[1], halfway[1].with_name("whole")))
    return resume(copy).directory


@pytest.fixture
def run(halfway: tuple[Recipe, Path], tmp_path: Path) -> Path:
    """A copy of the interrupted run."""
    return Path(shutil.copytree(halfway[1], tmp_path / "run"))


def rates(run: Path) -> list[float]:
    return [float(row["lr"]) for row in rows(run)]


def last_loss(run: Path) -> float:
    return float(rows(run)[-1]["val_loss"])


EFFECTS: dict[str, tuple[str, Callable[[Path, Path], bool]]] = {
    "epochs": ("6", lambda run, whole: len(rows(run)) == 6),
    "lr": ("0.001", lambda run, whole: rates(run)[2] < rates(whole)[2] / 4),
    "min_lr": ("0.004", lambda run, whole: rates(run)[-1] > 0.004),
    "schedule": ("constant", lambda run, whole: set(rates(run)[1:]) == {0.005}),
    "warmup_epochs": ("3.5", lambda run, whole: rates(run)[2] > rates(run)[1] > rates(whole)[3]),
    "clip_grad": ("1e-6", lambda run, whole: not same(run, whole)),
    "workers": ("1", same),
    "device": ("", same),
    "channels_last": ("true", lambda run, whole: abs(last_loss(run) - last_loss(whole)) < 0.1),
    "checkpoint_minutes": ("60", same),
    "keep_checkpoints": ("true", lambda run, whole: any((run / "checkpoint").iterdir()) and same(run, whole)),
    "tracker": ("tensorboard", lambda run, whole: any((run / "tensorboard").iterdir()) and same(run, whole)),
}
"""Field -> another value, and what shows that the run went on with it."""
STEPS = {"decay_epochs": "1.0", "decay_at": "[2.0]", "decay_rate": "0.5"}
"""Of the step schedule."""


def test_every_field_that_may_change_is_tried() -> None:
    assert set(MAY_CHANGE) == {*EFFECTS, *STEPS, "compile"}, "compile needs a compiler"


@pytest.mark.parametrize("name", EFFECTS)
def test_what_may_change_takes_effect(run: Path, whole: Path, name: str) -> None:
    if name == "tracker":
        pytest.importorskip("tensorboard")
    value, shows = EFFECTS[name]
    before = load_recipe(run / "recipe.toml")
    resume(run, [f"{name}={value}"])
    assert shows(run, whole)
    written = load_recipe(run / "recipe.toml")
    assert replace(before, **{name: getattr(written, name)}) == written != before
    (note,) = [line for line in (run / "recipe.toml").read_text().splitlines() if line.startswith("#")]
    assert note.startswith(f"# Went on after update 6 (epoch 2) with {name} = ")
    assert read_result(run)["changes"] == [note.removeprefix("# ")]


def test_the_step_schedule_may_change(run: Path) -> None:
    resume(run, ["schedule=step", *(f"{name}={value}" for name, value in STEPS.items())])
    assert rates(run)[1:] == [0.005, 0.0025, 0.0025]
    notes = (run / "recipe.toml").read_text()
    assert "decay_at = [ 2.0, ] ([] before), decay_rate = 0.5 (0.1 before)." in notes


def test_nothing_is_noted_where_nothing_changed(run: Path, whole: Path) -> None:
    resume(run, ["lr=0.005"])
    assert same(run, whole) and "#" not in (run / "recipe.toml").read_text() and "changes" not in read_result(run)


@pytest.mark.parametrize(
    "change",
    [
        "weight_decay=0.1",
        "patience=3",
        "optimizer=sgd",
        "ema_decay=0.9",
        "amp=bf16",
        'freeze=["conv1"]',
        "seed=1",
        "split_seed=1",
        "val_fraction=0.5",
        "mixup=0.1",
        "accumulate=2",
        "head_epochs=3",
        "layer_decay=0.5",
        "data=digits",
        "model=resnet20_cifar",
        "batch_size=5",
        "image_size=32",
        "on_bad_image=skip",
        "loader=host",
        "crop_scale=0.5",
        "attn_kwargs={neutral = false}",
        "label_smoothing=0.1",
    ],
)
def test_what_may_not_change_is_refused_by_name(
    run: Path, whole: Path, change: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = (run / "recipe.toml").read_text()
    name = change.partition("=")[0]
    assert main(["train", "--resume", str(run), "--set", change, "--set", "lr=0.1"]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert f"a run cannot go on with another {name} (" in line and "change only epochs, lr, " in line
    assert (run / "recipe.toml").read_text() == before and not (run / "model").exists()
    # The same by hand, which the checkpoint tells.
    (run / "recipe.toml").write_text(dump_recipe(load_recipe(run / "recipe.toml", [change])))
    with pytest.raises(RecipeError, match=f"cannot go on with another {name}"):
        resume(run)


def test_what_a_run_has_passed_already(run: Path) -> None:
    with pytest.raises(RecipeError, match=r"epochs = 1 is less than the 1\.\d+ that the run has trained already"):
        resume(run, ["epochs=1"])
    assert "#" not in (run / "recipe.toml").read_text(), "what was refused did not happen"


def remove(photos: Path) -> str:
    (photos / "disc" / "4.png").unlink()
    return r"images: 1 removed \(.*disc/4.png\)"


def add(photos: Path) -> str:
    shutil.copy(photos / "disc" / "4.png", photos / "disc" / "new.png")
    return r"images: 1 added \(.*disc/new.png\)"


def rename(photos: Path) -> str:
    (photos / "disc" / "4.png").rename(photos / "disc" / "four.png")
    return r"images: 1 removed \(.*disc/4.png\), 1 added \(.*disc/four.png\)"


def relabel(photos: Path) -> str:
    (photos / "disc" / "4.png").rename(photos / "cross" / "from disc.png")
    return r"images: 1 removed \(.*disc/4.png\), 1 added \(.*cross/from disc.png\)"


def rename_class(photos: Path) -> str:
    (photos / "disc").rename(photos / "ring")
    return "classes that are gone: disc; classes that are new: ring; images: "


def rewrite(photos: Path) -> str:
    (photos / "disc" / "4.png").write_bytes((photos / "disc" / "4.png").read_bytes() + b"!")
    return r"images: 1 rewritten \(.*disc/4.png\)"


@pytest.mark.parametrize("change", [remove, add, rename, relabel, rename_class, rewrite])
@pytest.mark.parametrize("split", [False, True], ids=["unsplit", "split"])
def test_data_that_changed_is_refused_by_name(change: Callable[[Path], str], split: bool, tmp_path: Path) -> None:
    """Where an image is added to 60, 7 of the 12 held-out ones would be trained on if they were split again."""
    photos = draw_shapes(tmp_path / "photos", parts=["train", "val"] if split else ["."], count=10)
    run = interrupted(replace(STEADY, data=str(photos), batch_size=5), tmp_path / "run", 2)
    if change is rename_class and split:
        rename_class(photos / "val")
    says = change(photos / "train" if split else photos)
    with pytest.raises(
        DataError, match=f"photos is not what this run was split from. {says}.*put it back as it was, or"
    ):
        resume(run)
    assert not (run / "model").exists()


def test_a_table_that_changed_is_refused_by_name(tmp_path: Path) -> None:
    photos, table = draw_shapes(tmp_path / "photos", parts=["."], count=10), tmp_path / "photos.csv"
    told = [
        (str(path), path.parent.name, "val" if path.stem < "2" else "train") for path in sorted(photos.rglob("*.png"))
    ]

    def write(told: list[tuple[str, ...]]) -> None:
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "label", "split"), *told])

    write(told)
    run = interrupted(replace(STEADY, data=str(table), batch_size=5), tmp_path / "run", 2)
    write([(told[0][0], "disc", told[0][2]), *told[1:]])
    with pytest.raises(DataError, match=r"images: 1 relabelled \(.*cross/0.png: disc, was cross\)"):
        resume(run)
    write([*told[:-1], (*told[-1][:2], "val")])
    with pytest.raises(DataError, match=r"images: 1 moved \(.*disc/9.png: val, was train\)"):
        resume(run)
    write(told[::-1])
    assert len(resume(run).epochs) == 4, "the order of its rows means nothing"


def test_a_project_may_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    draw_shapes(here / "photos", parts=["."], count=10)
    recipe = replace(STEADY, data="photos", batch_size=5)
    uninterrupted = train(recipe, here / "whole").directory
    interrupted(recipe, here / "run", 4)
    here.rename(tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    resume("run")
    assert same(tmp_path / "there" / "run", tmp_path / "there" / uninterrupted.name)


def edit_checkpoint(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    saved = load_checkpoint(run / "checkpoint")
    assert saved
    change(saved)
    shutil.rmtree(run / "checkpoint")
    save_checkpoint(run / "checkpoint", saved["step"], saved)


def test_a_run_keeps_its_order_of_classes(tmp_path: Path) -> None:
    """Written in its checkpoint; a run from before has the order of texts, in which capitals come first."""
    photos = draw_shapes(tmp_path / "photos", parts=["."], count=10)
    (photos / "disc").rename(photos / "Motorbikes")
    run = interrupted(replace(STEADY, data=str(photos), batch_size=5), tmp_path / "run", 2)
    saved = load_checkpoint(run / "checkpoint")
    assert saved and set(saved["data"]["classes"]) == {"cross", "Motorbikes"}
    copy, old = (Path(shutil.copytree(run, tmp_path / name)) for name in ("copy", "old"))
    edit_checkpoint(copy, lambda saved: saved["data"].update(classes=saved["data"]["classes"][::-1]))
    resume(copy)
    label_names = json.loads((copy / "model" / "config.json").read_text())["label_names"]
    assert label_names == list(saved["data"]["classes"][::-1])

    edit_checkpoint(old, lambda saved: (saved.pop("data"), saved.pop("recipe")))
    listed = [row[:3] for row in read_listing(old / "split.csv")]
    with (old / "split.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "split"), *listed])
    resume(old)
    assert json.loads((old / "model" / "config.json").read_text())["label_names"] == ["Motorbikes", "cross"]


def test_the_split_comes_from_split_csv(run: Path, whole: Path) -> None:
    """Not from a rule that another version of a library may change: images are exchanged by hand."""
    listed = read_listing(run / "split.csv")
    train_part, val_part = ([row for row in listed if row.split == part] for part in ("train", "val"))
    exchanged = [new._replace(split="train") for new in val_part] + train_part[len(val_part) :]
    exchanged += [old._replace(split="val") for old in train_part[: len(val_part)]]
    write_listing(run / "split.csv", exchanged)
    resume(run)
    assert not same(run, whole) and read_listing(run / "split.csv") == tuple(exchanged)


def test_skipped_images_stay_skipped(tmp_path: Path) -> None:
    """Also where one was mended in the meantime."""
    photos = draw_shapes(tmp_path / "photos", parts=["train", "val"], count=10)
    good = (photos / "train" / "disc" / "3.png").read_bytes()
    (photos / "train" / "disc" / "3.png").write_bytes(b"broken")
    recipe = replace(STEADY, data=str(photos), batch_size=5, on_bad_image="skip")
    uninterrupted = train(recipe, tmp_path / "whole").directory
    run = interrupted(recipe, tmp_path / "run", 4)
    (photos / "train" / "disc" / "3.png").write_bytes(good)
    resume(run)
    assert same(run, uninterrupted)
