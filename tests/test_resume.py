"""A run that was interrupted ends with the weights of one that was not, bit for bit on a CPU."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from shapes import TINY, draw_shapes, rows

from zoo.cli import main
from zoo.errors import Interrupted
from zoo.training.checkpoint import PARTS, checkpoints, load_checkpoint, save_checkpoint
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import dump_recipe
from zoo.training.start import resume, train

EVERYTHING = replace(
    TINY,
    epochs=3,
    batch_size=8,
    accumulate=2,
    drop_path=0.2,
    balance="sampler",
    mixup=0.2,
    cutmix=1.0,
    erase=0.5,
    auto_augment="rand-m5-mstd0.5",
    color_jitter=0.2,
    label_smoothing=0.1,
    ema_decay=0.99,
    clip_grad=1.0,
    warmup_epochs=0.5,
    checkpoint_minutes=0.0,
)
"""A recipe with something random in each place, ten updates an epoch."""


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def same(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return all(torch.equal(value, other[key]) for key, value in one.items())


def when_there(directory: Path, at_least: int, act: object, seconds: float = 120) -> threading.Thread:
    """Call `act` once the run's newest checkpoint is of the step `at_least` or later."""

    def watch() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = checkpoints(directory / "checkpoint")
            if found and int(found[0].name.split("-")[0]) >= at_least:
                return act()  # pyright: ignore
            time.sleep(0.005)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """The recipe on drawn data, and its run without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = replace(EVERYTHING, data=str(draw_shapes(folder / "data", count=41)))
    train(recipe, folder / "run")
    return recipe, folder / "run"


def test_sigterm_saves_and_the_resumed_run_is_the_same(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, uninterrupted = whole
    run = tmp_path / "run"
    for at_least in (4, 17):  # in the middle of the first and of the second epoch
        watcher = when_there(run, at_least, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match=f"go on by zoo train --resume {run}"):
            resume(run) if run.exists() else train(recipe, run)
        watcher.join()
        assert not (run / "model").exists()
    resume(run)
    assert same(run, uninterrupted)
    steady = ("lr", "train_loss", "val_loss", "val_top1")
    for row, other in zip(rows(run), rows(uninterrupted), strict=True):
        assert [float(row[name]) for name in steady] == pytest.approx([float(other[name]) for name in steady], rel=1e-5)
    with pytest.raises(RecipeError, match="is complete already"):
        resume(run)


def test_sigkill_and_a_damaged_checkpoint(
    whole: tuple[Recipe, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process killed in the act, its newest checkpoint damaged: the resumed run still ends the same."""
    recipe, uninterrupted = whole
    file, run = tmp_path / "recipe.toml", tmp_path / "run"
    file.write_text(dump_recipe(replace(recipe, workers=1)))
    command = [sys.executable, "-m", "zoo", "train", str(file), "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    when_there(run, 13, process.kill).join()
    assert process.wait() == -signal.SIGKILL and not (run / "model").exists()

    newest, before, *_ = checkpoints(run / "checkpoint")
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    assert main(["train", "--resume", str(run)]) == 0
    assert f"{newest} is damaged; going on from the checkpoint before it" in caplog.text
    assert before.name.split("-")[0] < newest.name.split("-")[0]
    assert same(run, uninterrupted), "nor does the number of loader processes matter"


def test_sigterm_exits_with_75(whole: tuple[Recipe, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe, _ = whole
    file, run = tmp_path / "recipe.toml", tmp_path / "run"
    file.write_text(dump_recipe(recipe))
    when_there(run, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["train", str(file), "--out", str(run)]) == 75
    assert "saved after update" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.every
def test_early_stopping_survives_an_interruption(tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "data", parts=["train", "val", "test"], count=10)
    recipe = replace(TINY, data=str(data), lr=0.0, epochs=9, batch_size=10, patience=2, checkpoint_minutes=0.0)
    run = train(recipe, tmp_path / "1")
    assert len(run.epochs) <= 9 and run.measured_on == "test/ of the folder" and run.score.n == 20
    best = max(run.epochs, key=lambda row: (row.val_top1, -row.val_loss)).epoch
    assert len(run.epochs) == min(9, best + 2)
    when_there(tmp_path / "2", 2 * best + 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "2")
    assert len(resume(tmp_path / "2").epochs) == len(run.epochs)
    assert same(tmp_path / "1", tmp_path / "2")


def test_checkpoints_are_kept_by_twos_and_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2, 10):
        save_checkpoint(tmp_path, step, dict.fromkeys(PARTS, torch.ones(3)) | {"step": step})
    assert [path.name.split("-")[0] for path in checkpoints(tmp_path)] == ["000000010", "000000002"]
    assert (load_checkpoint(tmp_path) or {})["step"] == 10
    for path in checkpoints(tmp_path):
        path.write_bytes(path.read_bytes()[:-1])
    assert load_checkpoint(tmp_path) is None
    assert len(caplog.records) == 2


def test_a_full_disk_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The kernel refuses to write more than 100 kB into any file; then there is room again."""
    data = draw_shapes(tmp_path / "data", count=10)
    recipe = replace(TINY, data=str(data), epochs=6, batch_size=10)
    train(recipe, tmp_path / "whole")
    file, run = tmp_path / "recipe.toml", tmp_path / "run"
    file.write_text(dump_recipe(recipe))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        assert main(["train", str(file), "--out", str(run)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capfd.readouterr().err.splitlines()[-1]
    assert said.startswith(f"zoo: cannot write {run}") and "File too large" in said and "is untouched" in said
    assert not [path for path in run.rglob("*") if path.name.startswith(".")], "half a file"

    run = tmp_path / "again"  # with the first epoch's checkpoint from before the disk was full
    watcher = when_there(run, 1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1])))
    try:
        with pytest.raises(OSError, match=f"cannot write {run / 'model'}: .*; make room, then zoo train --resume"):
            train(recipe, run)
    finally:
        watcher.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resume(run)
    assert same(run, tmp_path / "whole")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--resume", "nowhere"], "holds no run to resume"),
        ([], "a recipe, or --resume RUN"),
        (["recipe.toml", "--resume", "run"], "and one of them"),
    ],
)
def test_wrong_ways_to_resume(arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *arguments]) == 2
    assert says in capfd.readouterr().err
