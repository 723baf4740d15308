"""Augmentation on the device has the distributions of the loader path's: torchvision's and timm's transforms."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chi2_contingency, ks_2samp
from shapes import TINY, draw_shapes
from timm.data.random_erasing import RandomErasing

from zoo.data.augment import crop_and_flip, cut_out, erase, mixer, normaliser
from zoo.data.images import Images
from zoo.data.loaders import Augmented, DeviceBatches, one_size, stack_images, training_transform
from zoo.data.order import Batches, Share, generator
from zoo.training.recipe import RecipeError
from zoo.training.start import train

CONFIG = {"input_size": (3, 8, 8), "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}
ALL = slice(None)


def ramp(size: int = 8) -> np.ndarray:
    """An image (size, size, 3) whose every pixel is another colour than black, so that a crop tells its place."""
    rows, columns = np.mgrid[1 : size + 1, 1 : size + 1]
    return np.stack([rows * 20, columns * 20, np.full_like(rows, 200)], -1).astype(np.uint8)


def placements(crops: torch.Tensor) -> Counter[bytes]:
    """How often each crop (B, C, H, W) came."""
    return Counter(crop.numpy().tobytes() for crop in crops.contiguous())


@pytest.mark.parametrize("padding", [1, 2])
def test_crops_and_flips_come_as_often_as_on_the_host(padding: int) -> None:
    """9 or 25 corners times mirrored or not: the counts of both paths could be of one distribution."""
    count, hflip = 6000, 0.3
    transform = training_transform(CONFIG, (8, 8), crop_padding=padding, hflip=hflip)
    host = Augmented(Images([Image.fromarray(ramp())] * count, [0] * count), [transform], seed=0)
    one_by_one = torch.stack([torch.as_tensor(host[0, k][0]) for k in range(count)])
    images, labels = stack_images(Images([Image.fromarray(ramp())] * 60, [0] * 60), torch.device("cpu"))
    device = DeviceBatches(images, labels, Share(60, 60), (8, 8), padding, (hflip,))
    at_once = torch.cat([images for epoch in range(count // 60) for images, _ in device.epoch(epoch)])
    counts = [placements(one_by_one), placements(at_once)]
    possible = 2 * (2 * padding + 1) ** 2
    assert counts[0].keys() == counts[1].keys() and len(counts[0]) == possible
    table = [[count[crop] for crop in counts[0]] for count in counts]
    assert chi2_contingency(table).pvalue > 0.001
    rows = {crop: np.frombuffer(crop, np.uint8).reshape(3, 8, 8)[1, 4, 2:6].astype(int) for crop in counts[1]}
    mirrored = sum(counts[1][crop] for crop, row in rows.items() if row[0] > row[1])
    assert mirrored / count == pytest.approx(hflip, abs=0.03)


def test_without_padding_and_flip_images_pass_unchanged() -> None:
    images = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8)
    crops = crop_and_flip(images, torch.tensor([4, 0]), (8, 8), 0, (0.0,), ALL, generator("cpu", 1))
    assert torch.equal(crops, images[[4, 0]])
    flipped = crop_and_flip(images, torch.tensor([4, 0]), (8, 8), 0, (1.0,), ALL, generator("cpu", 1))
    assert torch.equal(flipped, images[[4, 0]].flip(2))


def test_erased_rectangles_are_timms() -> None:
    count, size = 3000, 24
    theirs = RandomErasing(probability=0.4, mode="const", device="cpu")(torch.ones(count, 3, size, size))
    mine = erase(torch.ones(count, 3, size, size), 0.4, count, ALL, generator("cpu", 3))
    holes = [(1 - images[:, 0]) for images in (mine, theirs)]
    areas = [hole.sum((1, 2)) for hole in holes]
    assert [(area > 0).float().mean().item() for area in areas] == pytest.approx([0.4, 0.4], abs=0.03)
    assert ks_2samp(*[area[area > 0].numpy() for area in areas]).pvalue > 0.001, "areas"
    sides = [
        [hole.amax(axis).sum(1)[area > 0].numpy() for axis in (1, 2)] for hole, area in zip(holes, areas, strict=True)
    ]
    assert all(ks_2samp(a, b).pvalue > 0.001 for a, b in zip(*sides, strict=True)), "widths and heights"
    middles = [hole.mean(0) for hole in holes]
    assert (middles[0] - middles[1]).abs().max() < 0.05, "places"
    assert all(area == side_a * side_b for area, side_a, side_b in zip(areas[0][areas[0] > 0], *sides[0], strict=True))


def test_cutout_is_a_square_around_a_random_pixel() -> None:
    images = cut_out(torch.ones(2000, 1, 8, 8), 4, 2000, ALL, generator("cpu", 0))
    holes = (1 - images)[:, 0]
    assert set(holes.sum((1, 2)).tolist()) == {4.0, 6.0, 8.0, 9.0, 12.0, 16.0} and holes.amax() == 1
    assert holes.sum((1, 2)).mean().item() == pytest.approx((28 / 8) ** 2, abs=0.3), "2, 3, 4 x 5, 3 of 8"


def test_parts_of_an_update_are_what_one_process_would_make() -> None:
    """Draws are for the whole update: two processes with two micro-batches make the crops of one process."""
    images, labels = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8), torch.arange(40)
    whole = list(DeviceBatches(images, labels, Share(40, 16), (8, 8), 2, (0.5,)).epoch(3))
    shares = [Share(40, 16, accumulate=2, rank=rank, world=2) for rank in range(2)]
    parts = [list(DeviceBatches(images, labels, share, (8, 8), 2, (0.5,)).epoch(3)) for share in shares]
    for update in range(2):
        pieces = [parts[rank][2 * update + k] for k in range(2) for rank in range(2)]
        assert torch.equal(torch.cat([images for images, _ in pieces]), whole[update][0])
        assert torch.equal(torch.cat([labels for _, labels in pieces]), whole[update][1])


def test_the_order_of_images() -> None:
    share = Share(103, 10, accumulate=2, seed=7)
    sampler = Batches(share)
    first = list(sampler)
    assert len(first) == len(sampler) == 20 and all(len(batch) == 5 for batch in first)
    seen = [index for batch in first for _, index in batch]
    assert len(set(seen)) == 100, "each image at most once, three left over"
    sampler.start = 4
    assert list(sampler) == first[8:], "from the fourth update on"
    sampler.epoch, sampler.start = 1, 0
    assert [index for batch in sampler for _, index in batch] != seen
    assert sorted(Share(103, 10, seed=7).order(5).tolist()) == list(range(103))


def test_normalise_and_mix() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    normalise = normaliser((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), torch.device("cpu"), torch.channels_last)
    wanted = (images / 255 - torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)) / torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    assert torch.allclose(normalise(images), wanted, atol=1e-5)
    assert normalise(images).is_contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([0, 1, 2, 2])
    _, soft = mixer(0.0, 0.0, 0.3, 3)(wanted, labels)
    assert torch.allclose(soft[0], torch.tensor([0.8, 0.1, 0.1])) and torch.allclose(soft.sum(1), torch.ones(4))
    np.random.seed(0)
    mixed, soft = mixer(1.0, 0.0, 0.0, 3)(wanted.clone(), labels)
    share = soft[0, 0].item()
    assert 0 < share < 1 and torch.allclose(mixed, share * wanted + (1 - share) * wanted.flip(0), atol=1e-5)


@pytest.mark.parametrize("auto_augment", ["", "rand-m9-mstd0.5", "augmix-m3", "3a"])
def test_colours_change_beside_other_augmentation(auto_augment: str) -> None:
    transform = training_transform(CONFIG, (8, 8), color_jitter=0.4, auto_augment=auto_augment)
    assert "ColorJitter" in repr(transform)
    assert "ColorJitter" not in repr(training_transform(CONFIG, (8, 8)))


def test_which_sets_live_on_the_device(tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "data", count=10, size=16)
    assert one_size(Images(sorted((data / "train").rglob("*.png")), [0] * 20)) == (16, 16)
    small = replace(TINY, data=str(data), epochs=2, crop_scale=1.0, crop_padding=2, loader="device")
    first = train(small, tmp_path / "device")
    assert first.score.n == 20
    for change, says in (
        ({"crop_padding": 0, "crop_scale": 0.5}, "crop_scale below 1 without crop_padding"),
        ({"auto_augment": "rand-m9"}, "auto_augment"),
        ({"image_size": 24}, "images of another size"),
    ):
        with pytest.raises(RecipeError, match=f"loader device cannot do this: {says}"):
            train(replace(small, **change), tmp_path / "no")
    host = train(replace(small, loader="host"), tmp_path / "host")
    assert host.epochs[-1].train_loss == pytest.approx(first.epochs[-1].train_loss, rel=0.25)
