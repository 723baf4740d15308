"""HA-CNN against the paper's network written out naively, and what re-identification asks of it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from formulas import randomised
from PIL import Image
from shapes import TINY, draw_shapes
from torch import Tensor, nn

import zoo  # noqa: F401
from zoo.data import open_held_out
from zoo.data.loaders import training_transform
from zoo.inference.evaluation import evaluate_images
from zoo.inference.trained import load_trained
from zoo.models.macs import parameter_count
from zoo.networks.hacnn import HACNN
from zoo.training.objective import Branches, make_objective
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.start import train
from zoo.training.starting_model import create_model


def with_regions(model: nn.Module) -> nn.Module:
    """Norms that show, and regions that depend on the image."""
    for m in randomised(model).modules():
        if isinstance(m, nn.Linear) and m.out_features == 8:
            nn.init.normal_(m.weight, std=0.3)
    return model.eval()


def layer(weights: dict[str, Tensor], conv: str, bn: str, x: Tensor, stride: int = 1) -> Tensor:
    """Convolution, batch norm, ReLU, by the names of their weights."""
    kernel = weights[f"{conv}.weight"]
    x = F.conv2d(x, kernel, weights[f"{conv}.bias"], stride=stride, padding=kernel.shape[-1] // 2)
    mean, var, w, b = (weights[f"{bn}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return F.relu((x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * w[:, None, None] + b[:, None, None])


def naive_inception(weights: dict[str, Tensor], name: str, x: Tensor, halve: bool) -> Tensor:
    def run(branch: int, index: int, y: Tensor, stride: int = 1) -> Tensor:
        unit = f"{name}.branches.{branch}.{index}"
        return layer(weights, f"{unit}.conv", f"{unit}.bn", y, stride)

    if not halve:
        threes = [run(i, 1, run(i, 0, x)) for i in range(3)]
        return torch.cat([*threes, run(3, 1, F.avg_pool2d(x, 3, 1, 1))], 1)
    first = run(0, 1, run(0, 0, x), 2)
    second = run(1, 2, run(1, 1, run(1, 0, x)), 2)
    return torch.cat([first, second, run(2, 1, F.max_pool2d(x, 3, 2, 1))], 1)


def naive_hacnn(weights: dict[str, Tensor], x: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Both branches' features, a region at a time, every convolution at every place."""
    x = layer(weights, "stem.conv", "stem.bn", x, 2)
    regions: list[Tensor] = []
    for i, size in enumerate(sizes):
        level = f"levels.{i}"
        y = naive_inception(weights, f"{level}.inception.0", x, halve=False)
        y = naive_inception(weights, f"{level}.inception.1", y, halve=True)
        soft, hard = f"{level}.attention.soft", f"{level}.attention.hard.fc"
        spatial = layer(weights, f"{soft}.spatial.conv1", f"{soft}.spatial.bn1", y.mean(1, keepdim=True), 2)
        spatial = F.interpolate(spatial, size=y.shape[2:], mode="bilinear", align_corners=True)
        spatial = layer(weights, f"{soft}.spatial.conv2", f"{soft}.spatial.bn2", spatial)
        channel = F.adaptive_avg_pool2d(y, 1)
        for j in (1, 2):
            channel = layer(weights, f"{soft}.channel.conv{j}", f"{soft}.channel.bn{j}", channel)
        gate = torch.sigmoid(layer(weights, f"{soft}.conv", f"{soft}.bn", spatial * channel))
        theta = torch.tanh(y.mean((2, 3)) @ weights[f"{hard}.weight"].T + weights[f"{hard}.bias"]).view(-1, 4, 2)
        following = []
        for t in range(4):
            affine = torch.zeros(len(x), 2, 3)
            affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = 1, 0.25, theta[:, t]
            grid = F.affine_grid(affine, list(x.shape), align_corners=True)
            crop = F.grid_sample(x, grid, align_corners=True)
            crop = F.interpolate(crop, size=size, mode="bilinear", align_corners=True)
            following.append(naive_inception(weights, f"{level}.local", crop + regions[t] if i else crop, halve=True))
        x, regions = y * gate, following

    def head(name: str, z: Tensor) -> Tensor:
        z = z @ weights[f"{name}.0.weight"].T + weights[f"{name}.0.bias"]
        mean, var, w, b = (weights[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.relu((z - mean) / (var + 1e-5).sqrt() * w + b)

    local = torch.cat([region.mean((2, 3)) for region in regions], 1)
    return head("fc_global", x.mean((2, 3))), head("fc_local", local)


@pytest.mark.parametrize(("height", "width"), [(160, 64), (97, 71)])
def test_equals_the_paper_written_naively(height: int, width: int) -> None:
    model, x = with_regions(timm.create_model("hacnn")), torch.randn(2, 3, height, width)
    assert isinstance(model, HACNN)
    with torch.no_grad():
        w = model.state_dict()
        parts = naive_hacnn(w, x, [(24, 28), (12, 14), (6, 7)])
        features = model.forward_head(model.forward_features(x), pre_logits=True)
        torch.testing.assert_close(features, torch.cat(parts, 1), rtol=1e-3, atol=1e-4)
        branches = [
            part @ w[f"classifier_{name}.weight"].T + w[f"classifier_{name}.bias"]
            for name, part in zip(("global", "local"), parts, strict=True)
        ]
        for ours, theirs in zip(model.forward_branches(x), branches, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(model(x), (branches[0] + branches[1]) / 2, rtol=1e-3, atol=1e-4)
        model.reset_classifier(0)
        joined = torch.cat([F.normalize(part) for part in parts], 1)
        torch.testing.assert_close(model(x), joined, rtol=1e-3, atol=1e-4)


def test_counts_of_torchreid() -> None:
    """Its HACNN of commit 03d0674: 3.700 M with 751 identities, 3.955 M with 1000, 2.000 M without regions."""
    sizes = {751: 3_699_638, 1000: 3_955_112}
    for identities, count in sizes.items():
        assert parameter_count(HACNN(identities, device="meta")) == count
    alone = HACNN(local_branch=False, device="meta")
    assert parameter_count(alone) == 2_000_135
    assert alone.num_features == 384 and alone.head_hidden_size == 512


def test_trains_with_one_image_and_without_regions() -> None:
    for options in ({}, {"local_branch": False}, {"regions": 3, "region_size": (9, 7)}):
        model = timm.create_model("hacnn", num_classes=5, **options).train()
        model(torch.randn(1, 3, 48, 32)).square().sum().backward()
        without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not without


def test_the_regions_move_while_it_learns() -> None:
    """The regressor starts with zero weights; two steps on eight pictures move it, and the loss falls."""
    model, x, y = timm.create_model("hacnn", num_classes=2), torch.randn(8, 3, 64, 32), torch.arange(8) % 2
    x[y == 1, :, :20] += 2.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = sum(F.cross_entropy(logits, y) for logits in model.train().forward_branches(x))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    assert all(level.attention.hard.fc.weight.abs().max() > 0 for level in model.levels)


@pytest.mark.every
def test_exports_with_any_size() -> None:
    model, dim = with_regions(timm.create_model("hacnn")), torch.export.Dim
    shapes = ({0: dim("b", min=2), 2: 16 * dim("h", min=4, max=40), 3: 16 * dim("w", min=4, max=40)},)
    exported = torch.export.export(model, (torch.randn(2, 3, 160, 96),), dynamic_shapes=shapes).module()
    x = torch.randn(3, 3, 96, 64)
    exact = model(x)
    torch.testing.assert_close(exported(x), exact, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(model(x).float(), exact, rtol=0.2, atol=0.2)


def test_says_what_it_cannot() -> None:
    with pytest.raises(ValueError, match="local_branch=True"):
        HACNN(local_branch=False).forward_branches(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError, match="not 'catavgmax'"):
        HACNN(global_pool="catavgmax")
    with pytest.raises(ValueError, match="output_fmt must be NCHW"):
        HACNN().forward_intermediates(torch.randn(1, 3, 32, 32), output_fmt="NHWC")


def test_a_loss_for_each_branch() -> None:
    """The gradient is that of the mean of two cross-entropies, and the joined logits' loss is another."""
    model: Any = with_regions(timm.create_model("hacnn", num_classes=3))
    for classifier in model.get_classifier():
        nn.init.normal_(classifier.weight, std=3.0)  # so that the branches disagree
    images, targets = torch.randn(2, 3, 32, 16), torch.eye(3)[[0, 2]]
    recipe = Recipe(model="hacnn", data="digits", branch_loss=True, temperature=2.0)
    objective = make_objective(recipe, {}, "abc", torch.device("cpu"))
    loss = objective(Branches(model)(images), targets, images)
    wanted = torch.stack([F.cross_entropy(logits, targets) for logits in model.forward_branches(images)]).mean()
    torch.testing.assert_close(loss, wanted)
    joined = make_objective(replace(recipe, branch_loss=False), {}, "abc", torch.device("cpu"))
    assert (joined(model(images), targets, images) - loss).abs() > 1e-3


@pytest.mark.parametrize("loader", ["host", "device"])
def test_training_on_images_that_are_no_squares(tmp_path: Path, loader: str) -> None:
    """Images are squashed to (H, W) on both paths and in evaluation, and a run starts from the weights of another."""
    data = draw_shapes(tmp_path / "data", count=8)
    for file in data.rglob("*.png"):
        with Image.open(file) as image:
            squashed = image.resize((16, 40))
        squashed.save(file)
    small = replace(TINY, model="hacnn", data=str(data), image_size=(40, 16), epochs=1, warmup_epochs=0.0, batch_size=8)
    recipe = replace(small, branch_loss=True, crop_scale=1.0, crop_padding=2, loader=loader)
    run = train(recipe, tmp_path / "run")
    trained = load_trained(str(run.directory))
    assert trained.config["input_size"] == (3, 40, 16) and trained.config["crop_mode"] == "squash"
    images, classes, _ = open_held_out(str(data))
    assert evaluate_images(trained, images, classes).loss == pytest.approx(run.score.loss, rel=1e-4)
    again = create_model(replace(recipe, weights=str(run.directory)), "abcde")
    kept, new = trained.network.state_dict(), again.state_dict()
    assert all(torch.equal(new[key], value) == ("classifier" not in key) for key, value in kept.items())


def test_what_a_rectangle_cannot_have(tmp_path: Path) -> None:
    data = draw_shapes(tmp_path / "data", count=8)
    recipe = replace(TINY, model="hacnn", data=str(data), epochs=1, warmup_epochs=0.0, image_size=(40, 16))
    for change, says in (
        ({"start_size": 16}, "start_size is for square images, and these are 40x16"),
        ({"image_size": (4, 40, 16)}, r"image_size of hacnn must be a side or \[H, W\], as it takes images"),
        ({"dflip": 0.5}, "dflip turns volumes around"),
        ({"loader": "device", "crop_scale": 1.0}, "images of another size"),
    ):
        with pytest.raises(RecipeError, match=says):
            train(replace(recipe, **change), tmp_path / "run")


@pytest.mark.parametrize("padding", [0, 1])
def test_without_a_crop_a_tall_image_keeps_its_shape(padding: int) -> None:
    config = {"input_size": (3, 128, 64), "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    image = Image.new("RGB", (64, 128))
    image.paste((255, 255, 255), (16, 48, 48, 80))
    made = training_transform(config, (128, 64), crop_scale=1.0, crop_padding=padding, hflip=0.0)(image)
    assert [len(np.unique(axis)) for axis in np.nonzero(np.asarray(made)[0])] == [32, 32]


def test_without_a_crop_the_image_is_squashed() -> None:
    config = {"input_size": (3, 10, 4), "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    transform = training_transform({**config, "crop_mode": "squash"}, (10, 4), crop_scale=1.0, hflip=0.0)
    assert np.array_equal(
        transform(image), np.asarray(image.resize((4, 10), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    )
