"""Classes of unequal size: `balance` draws them equally often, or weighs their losses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from shapes import TINY, draw_shapes

from zoo.data import open_data
from zoo.data.images import Images
from zoo.data.order import Batches, Share, even_order, generator
from zoo.data.streams import Stream
from zoo.processes import World
from zoo.training.batches import share_of_update
from zoo.training.objective import class_weights, make_objective
from zoo.training.recipe import RecipeError
from zoo.training.start import train

SIZES = (30, 4, 0, 9)
LABELS = tuple(label for label, size in enumerate(SIZES) for _ in range(size))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 crosses and 4 discs to train on."""
    data = draw_shapes(tmp_path_factory.mktemp("uneven"), count=20)
    for k in range(4, 20):
        (data / "train" / "disc" / f"{k}.png").unlink()
    return data


def test_every_class_comes_equally_often() -> None:
    labels = torch.tensor(LABELS)
    order = even_order(labels, generator("cpu", 1))
    assert len(order) == 43 and labels[order].bincount(minlength=4).sort().values.tolist() == [0, 14, 14, 15]
    times = order.bincount(minlength=43)
    assert times[:30].max() == 1, "of a large class no image comes twice"
    assert set(times[30:34].tolist()) <= {3, 4} and set(times[34:].tolist()) <= {1, 2}, (
        "all come before one comes again"
    )
    first, second = (set(even_order(labels, generator("cpu", epoch))[:30].tolist()) for epoch in (2, 3))
    assert first != second
    many = torch.arange(5)
    assert even_order(many, generator("cpu", 1)).sort().values.equal(many)


def test_processes_share_the_draw() -> None:
    whole = Share(43, 8, labels=LABELS)
    parts = [Batches(Share(43, 8, accumulate=2, rank=rank, world=2, labels=LABELS)) for rank in range(2)]
    drawn = [[index for _, index in batch] for pair in zip(*parts, strict=True) for batch in pair]
    assert [index for batch in drawn for index in batch] == whole.order(0)[:40].tolist()


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_losses_are_weighed(loss: str, uneven: Path) -> None:
    recipe, data = replace(TINY, data=str(uneven), loss=loss, balance="loss"), open_data(str(uneven))
    objective = make_objective(recipe, {}, data.classes, torch.device("cpu"), data.train.labels)
    logits, images = torch.randn(6, 2), torch.zeros(6, 3, 4, 4)
    labels = torch.tensor([0, 0, 0, 1, 1, 0])
    targets = F.one_hot(labels, 2).float()
    found = objective(logits, targets, images)
    weights = torch.tensor([24 / (2 * 20), 24 / (2 * 4)])
    if loss == "ce":
        wanted = (F.cross_entropy(logits, labels, reduction="none") * weights[labels]).mean()
    else:
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        wanted = (each * weights[labels, None]).mean()
    torch.testing.assert_close(found, wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(objective(logits, targets, images), found)
    halves = [objective(logits[part], targets[part], images[part]) for part in (slice(3), slice(3, 6))]
    torch.testing.assert_close(sum(halves) / 2, wanted)  # micro-batches


def test_weights_of_classes() -> None:
    weights = class_weights(LABELS, 4)
    assert weights.tolist() == pytest.approx([43 / 90, 43 / 12, 1, 43 / 27])
    assert weights[list(LABELS)].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("balance", ["sampler", "loss"])
def test_a_run_says_so_and_trains_otherwise(
    balance: str, uneven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = replace(TINY, data=str(uneven), epochs=1, batch_size=8, warmup_epochs=0.0, balance=balance)
    outcome = train(recipe, tmp_path / "run")
    assert {"sampler": "2 classes, drawn equally often", "loss": "weighed by the inverse"}[balance] in (
        capsys.readouterr().err
    )
    plain = train(replace(recipe, balance="none"), tmp_path / "plain")
    assert outcome.epochs[0].train_loss != plain.epochs[0].train_loss


def test_a_stream_is_refused() -> None:
    """It says the class of an image only when it is read."""
    stream = object.__new__(Stream)
    stream.reader = type("Reader", (), {"num_samples": 64})
    data = replace(open_data("digits"), train=stream)
    with pytest.raises(RecipeError, match="balance = 'loss' has to know the class of each image beforehand"):
        share_of_update(replace(TINY, balance="loss"), data, World(torch.device("cpu")))


def test_images_are_not_read_for_it() -> None:
    data = replace(open_data("digits"), train=Images([Path("not there")] * 43, list(LABELS)))
    share = share_of_update(replace(TINY, balance="sampler"), data, World(torch.device("cpu")))
    assert share.labels == LABELS
