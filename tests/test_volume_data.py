"""Volumes as data: how they are read, shifted and mirrored, and networks that learn from them."""

import csv
import json
import os
import re
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from hub_server import Hub
from PIL import Image
from scipy.stats import chisquare
from shapes import TINY, rods_and_balls_of
from test_resume import same, when_there

from zoo.cli import main
from zoo.data import DataError, Splitting, Volumes, open_data, open_held_out
from zoo.data.augment import crop_and_flip
from zoo.data.input_spec import input_spec
from zoo.data.loaders import DeviceBatches
from zoo.data.order import Share, generator
from zoo.data.volumes import fit, read_volume
from zoo.errors import Interrupted
from zoo.training.recipe import RecipeError
from zoo.training.recipe_file import make_recipe
from zoo.training.run_directory import Outcome
from zoo.training.start import resume, train
from zoo.weights.probe import probe

SMALL = replace(
    TINY,
    model="cbam_resnet18_volume",
    image_size=(8, 8, 8),
    epochs=2,
    batch_size=8,
    lr=2e-3,
    crop_scale=1.0,
    crop_padding=1,
    dflip=0.5,
    vflip=0.5,
    hflip=0.5,
)


@pytest.fixture(scope="module")
def rods_and_balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("volumes") / "shapes.npz"
    volumes, labels = rods_and_balls_of(96)
    np.savez(file, X_train=volumes[:64], y_train=labels[:64], X_test=volumes[64:], y_test=labels[64:])
    return file


@pytest.fixture(scope="module")
def volume_run(rods_and_balls: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    recipe = replace(SMALL, data=str(rods_and_balls), epochs=8, channels_last=True)
    return train(recipe, tmp_path_factory.mktemp("volumes") / "run")


def test_medmnists_arrays(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 6), np.uint8)
    labels = (np.arange(12) % 3)[:, None].astype(np.uint8)
    parts = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}
    arrays = {f"{part}_images": voxels[where] for part, where in parts.items()}
    np.savez(tmp_path / "mnist.npz", **arrays, **{f"{part}_labels": labels[where] for part, where in parts.items()})
    data = open_data(str(tmp_path / "mnist.npz"))
    assert [len(part) for part in (data.train, data.val, data.test)] == [6, 3, 3]  # pyright: ignore
    assert data.classes == ("0", "1", "2") and data.split == "test arrays of the file" and not data.listing
    volume, label = data.train[4]
    assert np.array_equal(volume, voxels[4, ..., None]) and label == 1
    stacked, indices = data.val.stack((1, 4, 5, 6), torch.device("cpu"))
    assert np.array_equal(stacked, voxels[6:9, ..., None]) and indices.tolist() == [0, 1, 2]


def test_packed_bits_booleans_and_class_names(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 2, (20, 16, 16, 16)).astype(bool)
    names = np.array(["chair", "table"])
    np.savez(tmp_path / "bits.npz", X=np.packbits(voxels, axis=-1), y=np.arange(20) % 2, classes=names)
    np.savez(tmp_path / "bools.npz", volumes=voxels, labels=np.arange(20) % 2, classes=names)
    for file in ("bits.npz", "bools.npz"):
        data = open_data(str(tmp_path / file), Splitting(val_fraction=0.2))
        assert data.classes == ("chair", "table") and (len(data.train), len(data.val)) == (16, 4)
        assert "a stratified 4 of 20" in data.split
        volumes, _, _ = open_held_out(str(tmp_path / file))
        assert len(volumes) == 20 and np.array_equal(volumes[3][0][..., 0], voxels[3] * np.uint8(255))


def test_folders_of_arrays_and_of_frames(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 256, (8, 3, 4, 5), np.uint8)
    for k, volume in enumerate(voxels):
        folder, clip = tmp_path / "scans" / "ab"[k % 2], tmp_path / "clips" / "ab"[k % 2] / f"clip{k}"
        folder.mkdir(parents=True, exist_ok=True)
        clip.mkdir(parents=True)
        np.save(folder / f"{k}.npy", volume)
        for t in range(12):  # 2.png comes before 10.png
            Image.fromarray(np.full((6, 7), 20 * t, np.uint8)).save(clip / f"{t}.png")
    data = open_data(str(tmp_path / "scans"), Splitting(val_fraction=0.25))
    assert isinstance(data.train, Volumes) and (len(data.train), len(data.val)) == (6, 2)
    with (tmp_path / "split.csv").open("w", newline="") as file:  # as a run writes it
        csv.writer(file).writerows([("path", "label", "split", "bytes"), *data.listing])
    again = open_data(str(tmp_path / "split.csv"))
    assert again.train.images == data.train.images and again.val.labels == data.val.labels

    clips = open_data(f"frames/{tmp_path / 'clips'}", Splitting(val_fraction=0.25))
    assert clips.train[0][0].shape == (12, 6, 7, 3) and clips.train[0][0][:, 0, 0, 0].tolist() == list(
        range(0, 240, 20)
    )
    stacked, _ = clips.val.stack((3, 4, 3, 7), torch.device("cpu"))
    assert stacked.shape == (2, 4, 3, 7, 3) and stacked[0, :, 0, 0, 0].tolist() == [0, 80, 140, 220]
    assert open_data(str(tmp_path / "clips")).train[0][0].size == (7, 6), "without frames/, each image counts"


def test_volumes_are_brought_to_size_by_means() -> None:
    volume = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 1), np.uint8)
    blocks = volume.reshape(2, 2, 3, 2, 4, 2).mean((1, 3, 5))
    assert np.abs(fit(volume, (1, 2, 3, 4)).numpy()[..., 0] - blocks).max() <= 0.5
    assert np.array_equal(fit(volume, (3, 4, 6, 8)).numpy(), volume.repeat(3, -1))
    assert np.array_equal(fit(volume, (1, 8, 6, 8)).numpy(), volume.repeat(2, 0))
    colour = volume * np.array([1, 0, 0], np.uint8)
    assert np.abs(fit(colour, (1, 4, 6, 8)).numpy() - volume / 3).max() <= 0.5
    with pytest.raises(DataError, match="volumes of 3 channels do not fit a network of 2"):
        fit(colour, (2, 4, 6, 8))


def test_shifts_and_flips_along_each_axis() -> None:
    """All 27 shifts times 2 flips of the first two axes come equally often, and the last axis is never mirrored."""
    volume = torch.arange(1, 2 * 3 * 4 + 1, dtype=torch.uint8).view(1, 2, 3, 4, 1)
    count = 5400
    draw = generator("cpu", 0)
    crops = crop_and_flip(volume, torch.zeros(count).long(), (2, 3, 4), 1, (0.5, 0.5, 0.0), slice(None), draw)
    padded = np.pad(volume[0, ..., 0].numpy(), 1)
    expected = set()
    for shift in np.ndindex(3, 3, 3):
        crop = padded[tuple(slice(k, k + n) for k, n in zip(shift, (2, 3, 4), strict=True))]
        expected |= {np.flip(crop, axes).tobytes() for axes in ((), (0,), (1,), (0, 1))}
    seen = Counter(crop.numpy().tobytes() for crop in crops)
    assert seen.keys() == expected and len(expected) == 108
    assert chisquare(list(seen.values())).pvalue > 0.001


def test_parts_of_an_update_are_what_one_process_would_make() -> None:
    volumes, labels = torch.randint(0, 256, (20, 5, 4, 6, 1), dtype=torch.uint8), torch.arange(20)
    options = ((5, 4, 6), 2, (0.5, 0.3, 0.7))
    whole = list(DeviceBatches(volumes, labels, Share(20, 8), *options).epoch(3))
    shares = [Share(20, 8, accumulate=2, rank=rank, world=2) for rank in range(2)]
    parts = [list(DeviceBatches(volumes, labels, share, *options).epoch(3)) for share in shares]
    for update in range(2):
        pieces = [parts[rank][2 * update + k] for k in range(2) for rank in range(2)]
        assert torch.equal(torch.cat([voxels for voxels, _ in pieces]), whole[update][0])
        assert torch.equal(torch.cat([labels for _, labels in pieces]), whole[update][1])
    (later, _), *_ = DeviceBatches(volumes, labels, Share(20, 8), *options).epoch(3, start=1)
    assert torch.equal(later, whole[1][0]) and later.shape == (8, 1, 5, 4, 6)


def test_training_learns_and_its_model_evaluates_and_predicts(
    volume_run: Outcome, rods_and_balls: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = volume_run
    assert run.score.top1 >= 85 and run.score.n == 32 and run.measured_on == "test arrays of the file"
    model = timm.create_model(f"local-dir:{run.directory / 'model'}", pretrained=True)
    assert input_spec(model).shape == (1, 8, 8, 8)
    assert main(["eval", str(run.directory), str(rods_and_balls), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["top1"] == pytest.approx(run.score.top1)

    volumes, _, _ = open_held_out(str(rods_and_balls))
    xs = torch.cat([fit(read_volume(v), (1, 8, 8, 8)).movedim(-1, 0)[None] / 255 for v in volumes.images])
    with torch.inference_mode():
        probabilities = model.eval()(xs).softmax(1)
    surest = int(probabilities.amax(1).argmax())
    (tmp_path / "new" / "clip").mkdir(parents=True)
    np.save(tmp_path / "new" / "one.npy", volumes.images[surest])
    for t, slice_ in enumerate(volumes.images[surest] * np.uint8(255)):
        Image.fromarray(slice_).save(tmp_path / "new" / "clip" / f"{t}.png")
    (tmp_path / "new" / "broken.npy").write_bytes(b"\x93NUMPY")
    assert main(["predict", str(run.directory), str(tmp_path / "new"), "--json"]) == 0
    said = {Path(row["file"]).name: row for row in map(json.loads, capfd.readouterr().out.splitlines())}
    assert dict(said["one.npy"]["classes"])["1"] == pytest.approx(probabilities[surest, 1].item(), abs=1e-5)
    assert said["clip"]["classes"][0][0] == said["one.npy"]["classes"][0][0], (
        said["clip"]["classes"],
        said["one.npy"]["classes"],
    )
    assert "cannot read the volume" in said["broken.npy"]["error"]
    assert main(["eval", str(run.directory), "digits"]) == 2
    assert "the data holds images and" in capfd.readouterr().err


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # by the Hub's client
def test_a_volume_network_is_published(
    volume_run: Outcome, hub: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repo = "me/cbam_resnet18_volume.shapes"
    assert main(["publish", str(volume_run.directory), "--repo", repo, "--license", "mit"]) == 0
    assert main(["verify", repo]) == 0 and ": good," in capfd.readouterr().out
    card = hub.repos[repo].head.files["README.md"].data.decode()
    head = yaml.safe_load(card.split("---")[1])
    assert "pipeline_tag" not in head and {"volume-classification", "cbam"} <= set(head["tags"])
    for words in (
        "1 x 8 x 8 x 8, averaged to that size",
        "n = 32 volumes",
        "Woo et al. 2018, arXiv 1807.06521",
        "volume.npy`",
    ):
        assert words in card, words
    assert "image" not in card.replace("image_size", "")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    np.save(tmp_path / "volume.npy", rods_and_balls_of(1)[0][0])
    names: dict[str, Any] = {}
    exec(code.replace("volume.npy", str(tmp_path / "volume.npy")), names)
    assert len(names["said"].classes) == 2 and not names["said"].error
    assert names["embedding"].shape == (1, 128) and names["maps"][1].shape == (1, 16, 4, 4, 4)
    local = timm.create_model(f"local-dir:{volume_run.directory / 'model'}", pretrained=True)
    assert torch.equal(probe(timm.create_model(f"hf-hub:{repo}", pretrained=True)), probe(local))


@pytest.mark.every
def test_an_interrupted_run_on_volumes_ends_the_same(rods_and_balls: Path, tmp_path: Path) -> None:
    recipe = replace(SMALL, data=str(rods_and_balls), batch_size=16, accumulate=2, mixup=0.2, checkpoint_minutes=0.0)
    train(recipe, tmp_path / "whole")
    watcher = when_there(tmp_path / "run", 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "run")
    watcher.join()
    resume(tmp_path / "run")
    assert same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "cbam_resnet20_cifar", "image_size": 8}, "holds volumes and cbam_resnet20_cifar takes images"),
        ({"data": "digits"}, "digits holds images and cbam_resnet18_volume takes volumes; take cbam_resnet18"),
        ({"image_size": 8}, "image_size of cbam_resnet18_volume must be [D, H, W], as it takes volumes, not 8"),
        ({"crop_padding": 0, "crop_scale": 0.5}, "volumes are shifted (crop_padding, in voxels) and not scaled"),
        ({"cutmix": 1.0}, "cutmix is for images"),
        ({"auto_augment": "rand-m9"}, "auto_augment is for images"),
        ({"loader": "host"}, "volumes are read once and live on the device"),
        ({"branch_loss": True}, "has no branches with logits of their own"),
    ],
)
def test_what_volumes_cannot_have(rods_and_balls: Path, tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        train(replace(SMALL, **{"data": str(rods_and_balls), **change}), tmp_path / "run")
    assert says in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"a": np.zeros(3)}, "holds the arrays a; train_images, train_labels"),
        ({"X_train": np.zeros((4, 2, 2, 2), bool)}, "has volumes of train alone"),
        ({"X": np.zeros((4, 2, 2, 2), bool), "y": np.zeros((4, 3))}, "4 volumes and labels of 4x3"),
        ({"X_big": np.zeros((4, 2, 2, 2), bool), "y_big": np.arange(4) % 2}, "unknown part 'big'"),
        ({"X": np.zeros((4, 2, 2, 2), np.float32), "y": np.arange(4) % 2}, "holds float32; scale its values to 0..255"),
        ({"X": np.zeros((4, 2, 2), np.uint8), "y": np.arange(4) % 2}, "is 2x2; an array of (D, H, W)"),
        ({"X": np.array([{}] * 4), "y": np.arange(4) % 2}, "cannot read"),
    ],
)
def test_wrong_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "wrong.npz", **arrays)  # pyright: ignore
    with pytest.raises(DataError) as error:
        open_data(str(tmp_path / "wrong.npz")).train.stack((1, 2, 2, 2), torch.device("cpu"))
    assert says in str(error.value)


def test_wrong_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "mixed" / name).mkdir(parents=True)
        np.save(tmp_path / "mixed" / name / "1.npy", np.zeros((2, 2, 2), bool))
    Image.new("RGB", (8, 8)).save(tmp_path / "mixed" / "a" / "1.png")
    with pytest.raises(DataError, match="holds images and volumes"):
        open_data(str(tmp_path / "mixed"))
    clip = tmp_path / "clip"
    clip.mkdir()
    with pytest.raises(DataError, match="holds no frames"):
        read_volume(clip)
    for t in (1, 2):
        Image.new("RGB", (8, 8 * t)).save(clip / f"{t}.png")
    with pytest.raises(DataError, match=r"differ in size: 2\.png from 1\.png"):
        read_volume(clip)


def test_check_data_looks_at_volumes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    volumes, labels = rods_and_balls_of(12)
    volumes[3], volumes[8] = False, volumes[0]
    np.savez(tmp_path / "v.npz", X_train=volumes[:8], y_train=labels[:8], X_test=volumes[8:], y_test=labels[8:])
    assert main(["check-data", str(tmp_path / "v.npz")]) == 1
    said = capfd.readouterr().out
    assert "train arrays of the file, number 3: every voxel is 0" in said
    assert "train arrays of the file, number 0 = test arrays of the file, number 0" in said


def test_sizes_of_a_recipe() -> None:
    base = {"model": "hacnn", "data": "digits"}
    assert make_recipe(base | {"image_size": [160, 64]}).image_size == (160, 64)
    for size in ([160], [160, 0], [1, 2, 3, 4], -1, []):
        with pytest.raises(RecipeError, match=r"image_size must be a side, \[H, W\] or \[D, H, W\], not"):
            make_recipe(base | {"image_size": size})
    for size in ("32", True, [1.5, 2]):
        with pytest.raises(RecipeError, match="image_size must be a whole number, or several in brackets"):
            make_recipe(base | {"image_size": size})
