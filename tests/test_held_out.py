"""What a run held out stays held out: in eval and in publish --measure, whatever happened to the data since."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapes import TINY, draw_shapes, rods_and_balls_of

from zoo.cli import main
from zoo.data import DataError, open_data
from zoo.data.listing import read_listing
from zoo.data.record import Record
from zoo.inference import evaluate_images, load_trained, open_part
from zoo.release.publish import measure
from zoo.training.run_directory import Outcome
from zoo.training.start import train

QUICK = replace(TINY, epochs=2, warmup_epochs=0.0, batch_size=10)


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """48 photos that nobody split, and a run on them that picked its epoch by what it split off."""
    folder = tmp_path_factory.mktemp("finetuned")
    photos = draw_shapes(folder / "photos", parts=["."], count=24)
    return photos, train(replace(QUICK, data=str(photos), patience=3, split_seed=3, val_fraction=0.25), folder / "run")


@pytest.fixture
def copied(finetuned: tuple[Path, Outcome], tmp_path: Path) -> tuple[Path, Path]:
    """The photos and the run moved to another place, where a test may change them; the first place is gone for it."""
    photos, run = finetuned
    here, copy = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(photos, here)
    shutil.copytree(run.directory, copy)
    for file in (copy / "split.csv", copy / "recipe.toml"):
        file.write_text(file.read_text().replace(str(photos), str(here)))
    return here, copy


def said(capfd: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    capfd.readouterr()
    assert main([*map(str, arguments), "--workers", "0"]) == code, capfd.readouterr().err
    out, err = capfd.readouterr()
    return err if code else out


def test_eval_measures_what_the_run_held_out(
    finetuned: tuple[Path, Outcome], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, run = finetuned
    result = f"top-1 {run.score.top1:.2f} %"
    words = "a stratified 12 of 48 images, the same for every training seed"
    assert run.measured_on == f"{words}; the same images chose the epoch"
    words = f"n = 12 ({words}, held out by the run; the same images chose the epoch)"
    for source in (run.directory, run.directory / "model", f"local-dir:{run.directory / 'model'}"):
        assert (line := said(capfd, "eval", source, photos)).startswith(result) and words in line
    for part, n, words in (
        ("val", 12, "held out by the run"),
        ("train", 36, "which the run trained on"),
        ("all", 48, "all images, 36 of which the run trained on"),
    ):
        line = said(capfd, "eval", run.directory, photos, "--part", part)
        assert f"n = {n} (" in line and words in line
    assert "has no part 'test'; it has train, val" in said(
        capfd, "eval", run.directory, photos, "--part", "test", code=2
    )
    assert measure(run.directory, str(photos), workers=0).items() >= {"n": 12, "top1": run.score.top1}.items()
    monkeypatch.chdir(photos.parent)
    assert "n = 12 (" in said(capfd, "eval", run.directory, "photos"), "by another name of the same folder"
    photos.with_name("link").symlink_to(photos)
    assert "n = 12 (" in said(capfd, "eval", run.directory, "link")
    images, _, _ = open_part(run.directory, str(photos))
    assert set(images.images) == set(open_data(str(run.directory / "split.csv")).val.images)


def test_other_data_is_measured_as_it_was(finetuned: tuple[Path, Outcome], tmp_path: Path) -> None:
    _, run = finetuned
    whole = draw_shapes(tmp_path / "whole", parts=["."], count=5, size=30)
    parts = draw_shapes(tmp_path / "parts", parts=["train", "val"], count=7, size=31)
    for data, part, n, words in (
        (whole, "", 10, "all images"),
        (whole, "all", 10, "all images"),
        (parts, "", 14, "val/ of the folder"),
        (parts, "all", 28, "all images"),
        (parts, "train", 14, "train/ of the folder"),
    ):
        images, _, told = open_part(run.directory, str(data), part)
        assert (len(images), told) == (n, words)


def test_data_that_was_moved_or_copied_is_the_runs_own(finetuned: tuple[Path, Outcome], tmp_path: Path) -> None:
    photos, run = finetuned
    copy, moved, away = tmp_path / "copy", tmp_path / "moved", tmp_path / "run"
    shutil.copytree(photos, copy)
    assert len(open_part(run.directory, str(copy))[0]) == 12, "by content"
    shutil.copytree(run.directory, away)
    listing = away / "split.csv"
    listing.write_text(listing.read_text().replace(str(photos), "/gone/photos"))
    shutil.copytree(photos, moved)
    assert len(open_part(away, str(moved))[0]) == 12, "by name and size"
    for image in moved.rglob("*.png"):
        image.write_bytes(image.read_bytes() + b"\0")
    assert len(open_part(away, str(moved))[0]) == 48, "images that only have the same names are others"


def add(photos: Path) -> str:
    shutil.copy(photos / "disc" / "0.png", photos / "disc" / "new.png")
    return r"images: 1 added \(.*new.png\)"


def relabel(photos: Path) -> str:
    for k in range(4):
        (photos / "disc" / f"{k}.png").rename(photos / "cross" / f"was disc {k}.png")
    return r"images: 4 added \("


def rewrite(photos: Path) -> str:
    image = photos / "cross" / "3.png"
    image.write_bytes(image.read_bytes() + b"more")
    return r"images: 1 rewritten \(.*3.png\)"


def add_class(photos: Path) -> str:
    shutil.copytree(photos / "disc", photos / "ring")
    return r"classes that are new: ring; images: 24 added \("


@pytest.mark.parametrize("change", [add, relabel, rewrite, add_class])
def test_data_that_changed_since_has_two_readings(
    copied: tuple[Path, Path], change: Callable[[Path], str], capfd: pytest.CaptureFixture[str]
) -> None:
    photos, run = copied
    assert "n = 12 (" in said(capfd, "eval", run, photos)
    says = change(photos)
    with pytest.raises(DataError, match=f"photos has changed since .*run was trained. {says}.*--part val .*--part all"):
        open_part(run, str(photos))
    with pytest.raises(DataError, match="has changed since"):
        measure(run, str(photos))
    assert measure(run, str(photos), "val", workers=0)["split"].endswith("the data has changed since")
    images, classes, words = open_part(run, str(photos), "val")
    assert 0 < len(images) <= 12 and words.endswith("the data has changed since")
    assert "ring" not in classes


def test_a_part_of_the_runs_data_is_known_too(copied: tuple[Path, Path]) -> None:
    photos, run = copied
    held_out = [row for row in read_listing(run / "split.csv") if row.split == "val"]
    Path(held_out[0].path).unlink()
    images, _, words = open_part(run, str(photos))
    assert len(images) == 11 and words.endswith("chose the epoch; 1 of them are not there any more")
    for row in held_out:
        Path(row.path).unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"run was trained on all images of .*photos; --part train measures on them"):
        open_part(run, str(photos))
    assert len(open_part(run, str(photos), "train")[0]) == 36


def test_a_run_from_before_sizes(copied: tuple[Path, Path]) -> None:
    photos, run = copied
    rows = [row[:3] for row in read_listing(run / "split.csv")]
    with (run / "split.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("path", "label", "split"), *rows])
    config = json.loads((run / "model" / "config.json").read_text())
    del config["zoo"]["digest"], config["zoo"]["result"]["kept_epoch"]
    config["zoo"]["recipe"]["data"] = str(photos)
    (run / "model" / "config.json").write_text(json.dumps(config))
    assert len(open_part(run, str(photos))[0]) == 12
    (run / "split.csv").write_text("path\n")
    assert len(open_part(run, str(photos))[0]) == 12, "by the recipe's split"
    (run / "split.csv").write_text("path,label\nx,y\n")
    with pytest.raises(DataError, match=r"split.csv is not what a run writes .*put it back"):
        open_part(run, str(photos))


def test_the_recipes_split_where_images_are_no_files(tmp_path: Path) -> None:
    """Arrays in one file: split again as the recipe says, and refused once the file holds others."""
    volumes, labels = rods_and_balls_of(40)
    np.savez(tmp_path / "scans.npz", X=volumes, y=labels)
    recipe = replace(QUICK, model="cbam_resnet18_volume", image_size=(8, 8, 8), crop_scale=1.0, batch_size=8)
    run = train(replace(recipe, data=str(tmp_path / "scans.npz"), val_fraction=0.3, split_seed=5), tmp_path / "run")
    assert not (run.directory / "split.csv").exists()
    images, classes, words = open_part(run.directory, str(tmp_path / "scans.npz"))
    assert words == "a stratified 12 of 40 images, the same for every training seed, held out by the run"
    assert evaluate_images(load_trained(str(run.directory)), images, classes).loss == pytest.approx(run.score.loss)
    assert len(open_part(run.directory, str(tmp_path / "scans.npz"), "all")[0]) == 40
    moved = str(shutil.copy(tmp_path / "scans.npz", tmp_path / "moved.npz"))
    assert len(open_part(run.directory, moved)[0]) == 12, "the same scans at another place"
    np.savez(tmp_path / "others.npz", X=~volumes, y=labels)
    assert len(open_part(run.directory, str(tmp_path / "others.npz"))[0]) == 40, "others of the same shape and labels"
    np.savez(tmp_path / "scans.npz", X=~volumes, y=labels)
    with pytest.raises(DataError, match=r"scans.npz holds other images or labels than .*run was trained on"):
        open_part(run.directory, str(tmp_path / "scans.npz"))
    with pytest.raises(DataError, match=r"scans.npz holds other images or labels than this run began with"):
        open_data(str(tmp_path / "scans.npz"), before=Record(classes=classes, digest=open_data(moved).digest))
    np.savez(tmp_path / "scans.npz", X=volumes[1:], y=labels[1:])
    with pytest.raises(DataError, match=r"scans.npz holds other images or labels than .*run was trained on"):
        open_part(run.directory, str(tmp_path / "scans.npz"))
    assert len(open_part(run.directory, str(tmp_path / "scans.npz"), "all")[0]) == 39


def test_parts_that_the_data_has_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With train/ and test/, a run that picks its epoch splits a val off; eval measures on test, or on val if asked."""
    data = draw_shapes(tmp_path / "data", parts=["train", "test"], count=10)
    run = train(replace(QUICK, data=str(data), patience=2), tmp_path / "run")
    assert (line := said(capfd, "eval", run.directory, data)).startswith(f"top-1 {run.score.top1:.2f} %")
    assert "n = 20 (test/ of the folder, held out by the run)" in line
    assert "n = 4 (a stratified 4 of 20 images" in said(capfd, "eval", run.directory, data, "--part", "val")
    assert "n = 16 (train/ of the folder, which" in said(capfd, "eval", run.directory, data, "--part", "train")
    assert "n = 20 (all images" in said(capfd, "eval", run.directory, data / "test", "--part", "all")


def test_split_csv_always_reads_back_as_data(tmp_path: Path) -> None:
    """After images were skipped, in data with parts of its own, and whatever the files are called."""
    data = draw_shapes(tmp_path / "data", parts=["."], count=10)
    for k, name in enumerate(
        ('a "quoted", name', "two\nlines", "a\rreturn", " spaces ", "semi;colon\t", "\x0b\u2028", "ü")
    ):
        (data / "disc" / f"{k}.png").rename(data / "disc" / f"{name}.png")
    for name in ("cross", "disc"):
        (data / name).rename(data / f'{name}, "{name}"\n')
    (data / 'disc, "disc"\n' / "9.png").write_bytes(b"broken")
    run = train(replace(QUICK, data=str(data), on_bad_image="skip"), tmp_path / "run")
    again = open_data(str(run.directory / "split.csv"))
    first = open_data(str(data))
    assert {*again.train.images, *again.val.images} == {*first.train.images, *first.val.images} - {
        data / 'disc, "disc"\n' / "9.png"
    }
    assert again.classes == first.classes and len(again.val) == run.score.n
    assert len(open_part(run.directory, str(data))[0]) == run.score.n
    assert len(open_part(run.directory, str(run.directory / "split.csv"))[0]) == run.score.n
