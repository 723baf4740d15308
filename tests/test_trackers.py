"""Trackers of experiments: what a run tells them, that it goes on there, and what is said where one is missing."""

import importlib.util
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from shapes import TINY, draw_shapes
from test_going_on import interrupted

from zoo.training.recipe import Recipe, RecipeError
from zoo.training.start import resume, train
from zoo.training.trackers import TRACKERS


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return replace(
        TINY, data=str(draw_shapes(tmp_path / "data", count=4)), epochs=3, batch_size=4, checkpoint_minutes=0.0
    )


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_tracker_that_is_not_installed(
    tracker: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zoo.training.trackers.find_spec", lambda name: None)
    with pytest.raises(
        RecipeError, match=rf'takes a package of that name: pip install "timm-attention-zoo\[{tracker}\]"'
    ):
        train(replace(recipe, tracker=tracker), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_run_that_goes_on_goes_on_there(
    tracker: str, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not importlib.util.find_spec(tracker):
        pytest.skip(f"{tracker} is not installed")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = interrupted(replace(recipe, tracker=tracker), tmp_path / "run", 3)
    resume(run)
    if tracker == "tensorboard":
        assert _of_tensorboard(run / "tensorboard") == [1, 2, 3]
    elif tracker == "trackio":
        (file,) = (tmp_path / "trackio").rglob("*.db")
        with sqlite3.connect(file) as base:
            assert base.execute("select distinct run_name, step from metrics order by step").fetchall() == [
                (base.execute("select run_name from metrics").fetchone()[0], step) for step in (1, 2, 3)
            ]
    else:
        assert list((run / "wandb").glob("offline-run-*/*.wandb"))


def _of_tensorboard(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return [event.step for event in found.Scalars("val_top1")]
