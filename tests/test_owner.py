"""A run directory has one owner, and whatever stops a run, `zoo train --resume` completes it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shapes import PICTURES, TINY, draw_shapes
from test_resume import same, when_there

from zoo.cli import main
from zoo.processes import World
from zoo.training.checkpoint import checkpoints
from zoo.training.owner import owned
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import dump_recipe
from zoo.training.start import Complete, resume, train, train_once

ZOO = (sys.executable, "-m", "zoo", "train")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe with a loader process, and its run without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = replace(TINY, data=str(draw_shapes(folder / "data", count=20)), epochs=2, batch_size=8, workers=1)
    (folder / "recipe.toml").write_text(dump_recipe(recipe))
    train(replace(recipe, workers=0), folder / "run")
    return recipe, folder / "run"


def begin(*words: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    command = [str(word) for word in (*ZOO, *words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=cwd)


def wait_for(there: Callable[[], bool], seconds: float = 100) -> None:
    until = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < until
        time.sleep(0.002)


@pytest.mark.every
def test_two_runs_of_one_name_get_two_directories(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    """Begun at once, so that both find no directory there."""
    _, uninterrupted = whole
    both = [begin(uninterrupted.parent / "recipe.toml", cwd=tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    runs = [tmp_path / "runs" / name for name in ("recipe", "recipe-2")]
    assert all(same(run, uninterrupted) for run in runs)


def test_a_second_owner_is_refused_and_the_lock_goes_with_the_first(
    whole: tuple[Recipe, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its loader process lives on for seconds when it was killed, but does not hold the lock for it."""
    recipe, uninterrupted = whole
    run = tmp_path / "run"
    (tmp_path / "recipe.toml").write_text(dump_recipe(replace(recipe, checkpoint_minutes=0.0)))
    first = begin(tmp_path / "recipe.toml", "--out", run)
    when_there(run, 2, lambda: first.send_signal(signal.SIGSTOP)).join()
    assert main(["train", "--resume", str(run)]) == 2
    assert f"{run} belongs to process {first.pid} on " in capfd.readouterr().err
    assert main(["train", str(tmp_path / "recipe.toml"), "--out", str(run)]) == 2
    assert "is there already; give another directory" in capfd.readouterr().err
    first.kill()
    first.communicate()
    assert main(["train", "--resume", str(run)]) == 0
    assert same(run, uninterrupted) and not (run / "lock").exists()


@pytest.mark.every
def test_killed_before_the_first_checkpoint(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    """Once the directory is claimed, its recipe is there: twice killed, gone on with, and complete in the end."""
    _, uninterrupted = whole
    run = tmp_path / "run"
    for words in ((uninterrupted.parent / "recipe.toml", "--out", run), ("--resume", run)):
        with begin(*words) as process:
            wait_for(lambda pid=process.pid: (run / "lock").exists() and str(pid) in (run / "lock").read_text())
            wait_for((run / "recipe.toml").exists)
            process.kill()
        assert not checkpoints(run / "checkpoint") and (run / "lock").exists()
    facts = train_once(run, lambda: pytest.fail("the run is there"))
    assert facts["epochs"] == 2 and same(run, uninterrupted)


def test_killed_between_model_and_report(
    whole: tuple[Recipe, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is left then: the model, checkpoints and no pages. Afterwards nothing is left to do, and that is said."""
    recipe, uninterrupted = whole
    run = tmp_path / "run"
    train(replace(recipe, workers=0, keep_checkpoints=True), run)
    recipe_toml = (run / "recipe.toml").read_text()
    (run / "recipe.toml").write_text(recipe_toml.replace("keep_checkpoints = true", "keep_checkpoints = false"))
    assert checkpoints(run / "checkpoint")
    assert main(["train", "--resume", str(run), "--set", "epochs=3"]) == 2
    assert "is complete already" in capfd.readouterr().err
    assert main(["train", "--resume", str(run)]) == 0
    said = capfd.readouterr().out
    assert "top-1" in said and f'"local-dir:{run / "model"}"' in said
    assert (run / "report.html").exists() and (run / "model" / "README.md").exists()
    assert not (run / "checkpoint").exists() and same(run, uninterrupted)
    assert main(["train", "--resume", str(run)]) == 2
    assert f"{run} is complete already: its model is in {run / 'model'}" in capfd.readouterr().err


def test_killed_before_its_recipe_was_there(
    whole: tuple[Recipe, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A lock of the dead and half a file are no run: --resume says how to begin, and that works."""
    _, uninterrupted = whole
    run = tmp_path / "run"
    run.mkdir()
    (run / "lock").write_text("process 1 on nowhere")
    for name in (".recipe.toml.0a1b2c3d.new", ".recipe.toml.new"):
        (run / name).write_text("model = ")
    assert main(["train", "--resume", str(run)]) == 2
    assert f"holds no run to resume; start one with zoo train RECIPE --out {run}" in capfd.readouterr().err
    assert main(["train", str(uninterrupted.parent / "recipe.toml"), "--out", str(run)]) == 0
    assert same(run, uninterrupted) and not [path for path in run.rglob("*") if path.name.startswith(".")]


def test_a_mistake_leaves_nothing_that_it_made(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, _ = whole
    bad = replace(recipe, batch_size=4096)
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "new" / "deep" / "run", tmp_path / "empty"):
        with pytest.raises(ValueError, match="batch_size 4096 is more than"):
            train(bad, place)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"] and not list((tmp_path / "empty").iterdir())
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RecipeError, match=r"file.*; give another directory with --out"):
            train(recipe, place)


def test_a_complete_run_keeps_its_model_and_drops_its_checkpoints(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, uninterrupted = whole
    assert not (uninterrupted / "checkpoint").exists() and (uninterrupted / "model").exists()
    kept = train(replace(recipe, epochs=1, warmup_epochs=0.0, workers=0, keep_checkpoints=True), tmp_path / "kept")
    assert checkpoints(kept.directory / "checkpoint")
    with pytest.raises(Complete, match="is complete already"):
        resume(kept.directory)
    assert checkpoints(kept.directory / "checkpoint"), "nor does looking at it again"


def test_what_a_killed_process_was_writing_is_removed_by_the_next_owner(tmp_path: Path) -> None:
    halves = [tmp_path / ".model.1.new" / "half", tmp_path / "checkpoint" / ".000000003-0.pt.2.new"]
    for half in halves:
        half.parent.mkdir()
        half.touch()
    with owned(tmp_path, World(torch.device("cpu"))):
        assert not any(half.exists() for half in halves)
        assert (tmp_path / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("minutes", [5.0, 0.0])
def test_after_an_explosion_the_advice_works(minutes: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Decay alone makes the weights 10 times larger in each update, until they overflow; a tenth of it shrinks them.

    A checkpoint at each update includes one whose weights are finite and overflow in the next.
    """
    data = draw_shapes(tmp_path / "data", count=20)
    values = {"lr": 0.01, "weight_decay": 1100.0, "warmup_epochs": 0.0, "checkpoint_minutes": minutes}
    recipe = replace(TINY, data=str(data), batch_size=4, epochs=2, schedule="constant", **values)
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    run = tmp_path / "run"
    assert main(["train", str(tmp_path / "recipe.toml"), "--out", str(run)]) == 2
    said = capfd.readouterr().err.splitlines()[-1]
    assert re.search(r"is not finite after (1[1-9]|20) updates", said) and f"state in {run / 'not_finite.pt'}" in said
    advice = said.partition("; ")[2].partition(" goes on from ")[0].split()
    assert advice == ["zoo", "train", "--resume", str(run), "--set", "lr=0.001"]
    assert f" goes on from update {int(checkpoints(run / 'checkpoint')[0].name.split('-')[0])} " in said
    assert main(advice[1:]) == 0
    left = {path.name for path in run.iterdir()} - PICTURES
    assert left == {"recipe.toml", "metrics.csv", "split.csv", "model", "report.html"}
