"""Planted images, of which it is known where the evidence is, and what points at it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.data import open_data
from zoo.data.planted import SHAPES, SIDE, draw_planted
from zoo.explain.pointing import hits, pointing_game
from zoo.inference import load_trained
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train


def test_the_shape_alone_tells_the_class() -> None:
    planted = draw_planted(200, seed=3)
    again = draw_planted(200, seed=3)
    assert all(np.array_equal(a.image, b.image) and a.box == b.box for a, b in zip(planted, again, strict=True))
    assert [each.label for each in planted[:5]] == [0, 1, 2, 3, 0]
    boxes = np.array([each.box for each in planted])
    assert boxes.min() >= 0 and boxes.max() < SIDE and len(np.unique(boxes, axis=0)) > 100
    for label in range(len(SHAPES)):  # what is drawn around it is alike: no class is brighter, or elsewhere
        of_class = [k for k, each in enumerate(planted) if each.label == label]
        assert abs(np.mean([np.asarray(planted[k].image).mean() for k in of_class]) - 120) < 15
        assert abs(boxes[of_class].mean() - SIDE / 2) < 2


def test_it_is_data_by_its_name() -> None:
    data = open_data("planted")
    assert (len(data.train), len(data.val), data.classes) == (2000, 400, SHAPES)
    assert not np.array_equal(data.train[0][0], data.val[0][0]), "parts are drawn apart"


def test_what_counts_as_a_hit() -> None:
    planted = draw_planted(8, seed=0)
    maps, corners = torch.zeros(8, SIDE, SIDE), torch.zeros(8, SIDE, SIDE)
    for k, each in enumerate(planted):
        left, top, right, bottom = each.box
        maps[k, (top + bottom) // 2, (left + right) // 2] = 1
        corners[k, 0 if top > SIDE / 2 else -1, 0 if left > SIDE / 2 else -1] = 1
    assert hits(maps, planted).all() and not hits(corners, planted).any()


@pytest.mark.every
def test_gates_and_grad_cam_point_at_it(tmp_path: Path) -> None:
    """Trained from random weights, in under a minute of a free core."""
    pytest.importorskip("torchcam")
    train(load_recipe("planted", ["epochs=5", "device=cpu"]), tmp_path / "run")
    found = pointing_game(load_trained(str(tmp_path / "run")))
    assert found["gates"] > 0.5 and found["grad_cam"] > 0.7 and found["random"] < 0.2
