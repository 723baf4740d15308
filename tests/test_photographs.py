"""Photographs as people have them: turned, of 16 bits, with palettes, too large, damaged, and files that are none."""

import io
import os
import random
import threading
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import TINY, draw_shapes

from zoo.cli import main
from zoo.data import DataError, open_data, read_image
from zoo.data.check import check_data
from zoo.data.images import Encoded, Images
from zoo.data.kinds import IMAGES, Way
from zoo.data.loaders import one_size, stack_images, training_transform
from zoo.training.start import train

CONFIG = {"input_size": (3, 8, 8), "interpolation": "bilinear", "mean": (0.0,) * 3, "std": (1.0,) * 3, "crop_pct": 1.0}
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF")


def ramp(width: int = 12, height: int = 8) -> np.ndarray:
    """An image (height, width, 3) that is another one however it is turned."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, rows * 0], -1).astype(np.uint8)


def stored(image: Image.Image, form: str = "PNG", turned: int = 0, **options: Any) -> bytes:
    if turned:
        options["exif"] = exif = Image.Exif()
        exif[274] = turned
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


UNDO: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""How a camera that was held so stores what is upright."""


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("turned", range(1, 9))
def test_an_image_is_turned_as_its_exif_says(turned: int, form: str) -> None:
    upright = ramp()
    as_stored = Image.fromarray(np.ascontiguousarray(UNDO[turned](upright)))
    lossless = {"quality": 100, "subsampling": 0} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    read = np.asarray(read_image(Encoded(stored(as_stored, form, turned, **lossless), "x")))
    assert read.shape == upright.shape and np.abs(read.astype(int) - upright).max() <= (6 if form == "JPEG" else 0)


def turned_set(root: Path) -> Path:
    """Upright images, and the same stored on their side."""
    for part in ("train", "val"):
        for k in range(6):
            for name, value in (("a", k), ("b", 100 + k)):
                image = ramp(8, 8)
                image[..., 2] = value
                folder = root / part / name
                folder.mkdir(parents=True, exist_ok=True)
                stored_so = np.ascontiguousarray(np.rot90(image)) if k % 2 else image
                folder.joinpath(f"{k}.png").write_bytes(stored(Image.fromarray(stored_so), turned=6 if k % 2 else 0))
    return root


def test_train_eval_and_predict_see_the_same_upright_image(tmp_path: Path) -> None:
    data = open_data(str(turned_set(tmp_path / "photos")))
    files = data.val.images
    one, other = (next(path for path in files if path.name == f"{k}.png") for k in (2, 1))
    read = IMAGES.reader(CONFIG, (3, 8, 8))
    assert torch.equal(read(one)[:2], read(other)[:2]), "predict"
    pixels, _ = stack_images(data.train, torch.device("cpu"))
    assert (pixels[..., :2] == pixels[:1, ..., :2]).all(), "the loader on the device"
    for workers in (0, 1):
        (batch,) = IMAGES.held_out(data.val, dict(CONFIG), (3, 8, 8), Way(torch.device("cpu"), 12, workers))
        assert (batch[0][:, :2] == batch[0][:1, :2]).all(), "eval"
    transform = training_transform(CONFIG, (8, 8), crop_scale=1.0, hflip=0.0)
    made = torch.stack([torch.as_tensor(transform(data.train[k][0])) for k in range(12)])
    assert (made[:, :2] == made[:1, :2]).all(), "the loader in processes"


def test_the_size_of_an_image_is_that_of_the_upright_one(tmp_path: Path) -> None:
    for form in FORMATS:
        (tmp_path / f"turned.{form}").write_bytes(stored(Image.new("RGB", (12, 8)), form, 6))
        (tmp_path / f"upright.{form}").write_bytes(stored(Image.new("RGB", (8, 12)), form))
    assert one_size(Images(sorted(tmp_path.iterdir()), [0] * 8)) == (12, 8)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_leaves_the_image_as_it_lies(tmp_path: Path) -> None:
    whole = stored(Image.fromarray(ramp()), "JPEG", 6)
    at = whole.index(b"Exif\0\0") + 6
    for damaged in (b"XX" + whole[at + 2 : at + 8], whole[at : at + 4] + b"\xff\xff\xff\x7f"):
        assert read_image(Encoded(whole[:at] + damaged + whole[at + 8 :], "x")).size == (12, 8)
    root = draw_shapes(tmp_path / "data", count=3)
    (root / "train" / "disc" / "odd.jpg").write_bytes(whole[:at] + b"XX" + whole[at + 2 :])
    assert "EXIF block cannot be read" in "".join(check_data(str(root)).suspicious.values())


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_become_eight(form: str, order: str) -> None:
    values = np.linspace(0, 65535, 64).astype(order).reshape(8, 8)
    if form != "TIFF":
        values = values.astype("<u2")
    read = np.asarray(read_image(Encoded(stored(Image.fromarray(values), form), "x")))
    assert np.array_equal(read, np.repeat((values >> 8)[..., None], 3, -1)), "and not cut at 255"


def test_palettes_and_transparency() -> None:
    image = Image.new("P", (4, 2))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2, 0, 0, 1, 2, 0])
    wanted = np.asarray(image.convert("RGB"))
    for options in ({}, {"transparency": 1}, {"transparency": b"\x00\x80\xff"}):
        assert np.array_equal(np.asarray(read_image(Encoded(stored(image, **options), "x"))), wanted)
    colours = np.array([[[10, 20, 30, 0], [40, 50, 60, 255]]], np.uint8)
    assert np.array_equal(np.asarray(read_image(Encoded(stored(Image.fromarray(colours)), "x"))), colours[..., :3])


@pytest.mark.parametrize(("kind", "held"), [(np.float32, "floats"), (np.int32, "32-bit integers")])
def test_numbers_of_a_range_that_nobody_knows_are_refused(kind: type, held: str) -> None:
    content = stored(Image.fromarray(np.linspace(0, 1000, 64).astype(kind).reshape(8, 8)), "TIFF")
    with pytest.raises(DataError, match=f"cannot read the image x: it holds {held}, whose range only you know: scale"):
        read_image(Encoded(content, "x"))


def test_crop_padding_keeps_the_shape_of_an_image() -> None:
    """A circle stays one: the shorter side is brought to size, not both."""
    rows, columns = np.mgrid[:40, :80]
    ball = ((rows - 20) ** 2 + (columns - 40) ** 2 < 15**2) * np.uint8(255)
    image = Image.fromarray(np.repeat(ball[..., None], 3, -1))

    def sides(**config: str) -> tuple[int, int]:
        transform = training_transform(CONFIG | config, (20, 20), crop_scale=1.0, crop_padding=1, hflip=0.0)
        made = np.max([np.asarray(transform(image))[0] for _ in range(30)], 0) > 127
        return int(made.any(1).sum()), int(made.any(0).sum())

    torch.manual_seed(0)
    single = np.asarray(training_transform(CONFIG, (20, 20), crop_scale=1.0, crop_padding=1, hflip=0.0)(image))[0] > 127
    assert single.any(1).sum() >= 12, "as tall as it is in half the size"
    assert sides(crop_mode="squash")[0] > 12 and sides(crop_mode="border")[0] < 12
    same = Image.fromarray(ramp(20, 20))
    without = training_transform(CONFIG, (20, 20), crop_scale=1.0, crop_padding=0, hflip=0.0)
    assert np.array_equal(without(same), np.asarray(same).transpose(2, 0, 1))


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("huge") / "huge.png"
    Image.new("1", (20_000, 20_000)).save(file)
    return file


@pytest.mark.parametrize("change", [{"loader": "host"}, {"loader": "auto"}, {"workers": 2, "loader": "host"}])
def test_a_huge_image_is_one_line_with_every_loader(
    change: dict[str, Any], huge: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from zoo.training.recipe_file import dump_recipe

    root = draw_shapes(tmp_path / "data", count=8, size=16)
    (root / "train" / "disc" / "0.png").unlink()
    (root / "train" / "disc" / "0.png").symlink_to(huge)
    recipe = replace(TINY, data=str(root), batch_size=8, crop_scale=1.0, crop_padding=2, epochs=1, warmup_epochs=0.0)
    (tmp_path / "recipe.toml").write_text(dump_recipe(replace(recipe, **change)))
    assert main(["train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    wanted = "0.png: it has more than 179 million pixels, the most that Pillow reads; shrink it or take it out"
    assert [line for line in said if wanted in line] == said[-1:] and "Traceback" not in "".join(said)
    assert not (tmp_path / "run").exists()


@pytest.mark.every
def test_a_huge_image_is_skipped_or_named(huge: Path, tmp_path: Path) -> None:
    root = draw_shapes(tmp_path / "data", count=8)
    (root / "train" / "disc" / "huge.png").symlink_to(huge)
    assert [Path(name).name for name in check_data(str(root)).broken] == ["huge.png"]
    recipe = replace(TINY, data=str(root), batch_size=8, epochs=1, warmup_epochs=0.0, on_bad_image="skip")
    assert train(recipe, tmp_path / "run").score.n == 16


def test_links_that_dangle_and_files_that_are_none(tmp_path: Path) -> None:
    """A FIFO is not waited for."""
    root = draw_shapes(tmp_path / "data", count=3)
    disc = root / "train" / "disc"
    (disc / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (disc / "round.png").symlink_to(disc / "round.png")
    os.mkfifo(disc / "pipe.png")
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(check_data(str(root))), daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "check-data waits for a FIFO"
    broken = {Path(name).name: reason for name, reason in found[0].broken.items()}
    assert broken.keys() == {"gone.png", "round.png", "pipe.png"}
    assert broken["gone.png"] == f"it is a link to {tmp_path / 'nowhere.png'}, which is not there"
    assert broken["pipe.png"] == "it is no file but a FIFO" and "symbolic links" in broken["round.png"]
    with pytest.raises(DataError, match=r"cannot read the image .*pipe.png: it is no file but a FIFO; repair it or"):
        read_image(disc / "pipe.png")


def test_a_report_of_sizes_modes_and_imbalance(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = draw_shapes(tmp_path / "data", ["train"], count=4)
    disc = root / "train" / "disc"
    for k in range(4):
        Image.new("L", (40, 30), k).save(disc / f"grey {k}.png")
        (disc / f"turned {k}.png").write_bytes(stored(Image.new("RGB", (60, 50), (k, 0, 0)), turned=6))
    Image.fromarray(np.full((20, 20), 4000, np.uint16)).save(disc / "dark.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 4)).save(disc / "glass.png")
    (disc / "notes.txt").write_text("no image")
    (root / "stray.heic").write_text("no image")
    report = check_data(str(root))
    assert report.sizes == {"24x24": 8, "40x30": 4, "50x60": 4, "20x20": 2}
    assert report.modes == {"RGB": 12, "L": 4, "I;16": 1, "RGBA": 1}
    assert report.imbalance == {"train": 3.5} and report.left_out == {".heic": 1, ".txt": 1}
    odd = {Path(name).name: reason for name, reason in report.suspicious.items()}
    assert "only 0 to 4000 are used" in odd["dark.png"] and "transparent in places" in odd["glass.png"]
    assert main(["check-data", str(root)]) == 0
    said = capfd.readouterr().out
    assert "sizes: 20x20 to 50x60, 4 different ones, most often 24x24 (8)" in said
    assert "modes: RGB 12, L 4, " in said and "imbalance: one class has 3.5 times the images of another" in said


def seeds() -> dict[str, bytes]:
    """A small file of each kind that people have."""
    rgb, grey = Image.fromarray(ramp()), Image.fromarray(ramp()[..., 0])
    sixteen = Image.fromarray(ramp()[..., 0].astype(np.uint16) * 257)
    frames = {"save_all": True, "append_images": [grey.convert("RGB")]}
    palette = rgb.quantize(16)
    images = {
        "jpg": stored(rgb, "JPEG", 6),
        "progressive.jpg": stored(rgb, "JPEG", progressive=True),
        "cmyk.jpg": stored(rgb.convert("CMYK"), "JPEG"),
        "mpo.jpg": stored(rgb, "MPO", **frames),
        "png": stored(rgb, "PNG", 5),
        "16.png": stored(sixteen),
        "palette.png": stored(palette, transparency=b"\x00\x80\xff"),
        "moving.png": stored(rgb, **frames),
        "gif": stored(rgb, "GIF", **frames),
        "bmp": stored(palette, "BMP"),
        "webp": stored(rgb, "WEBP", 8, **frames),
        "tif": stored(rgb, "TIFF", 7),
        "lzw.tif": stored(rgb, "TIFF", compression="tiff_lzw"),
        "16.tif": stored(sixteen, "TIFF", compression="tiff_deflate"),
        "float.tif": stored(Image.fromarray(ramp()[..., 0].astype(np.float32)), "TIFF"),
        "ppm": stored(rgb, "PPM"),
        "16.pgm": stored(sixteen, "PPM"),
    }
    return images


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The same file after an accident: bytes changed, numbers at their extremes, cut, doubled or filled with zeros."""
    made = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 16))):
        at = draw.randrange(min(len(made), draw.choice((32, 128, len(made))))) if made else 0
        match draw.randrange(6):
            case 0:
                made[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                made[at : at + 4] = draw.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"))
            case 2:
                del made[at:]
            case 3:
                made[at:at] = made[max(0, at - draw.randrange(64)) : at]
            case 4:
                made[at : at + draw.randrange(64)] = b""
            case _:
                length = draw.randrange(64)
                made[at : at + length] = bytes(length)
    return bytes(made)


def test_what_damage_does_to_files_is_one_line_each(tmp_path: Path) -> None:
    """Whatever Pillow raises on them; filters and limits of the process stay as they are."""
    draw = random.Random(0)
    folder = tmp_path / "data" / "damaged"
    folder.mkdir(parents=True)
    for name, content in seeds().items():
        for k in range(24):
            (folder / f"{k} {name}.png").write_bytes(mutated(content, draw))
    (tmp_path / "data" / "whole").mkdir()
    for name, content in seeds().items():
        (tmp_path / "data" / "whole" / f"{name}.png").write_bytes(content)
    filters, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    report = check_data(str(tmp_path / "data"))
    assert (list(warnings.filters), Image.MAX_IMAGE_PIXELS) == (filters, limit)
    broken = Counter(Path(name).parent.name for name in report.broken)
    assert broken["damaged"] > 100 and [Path(name).name for name in report.broken if "whole" in name] == [
        "float.tif.png"
    ]
    assert all(reason and "\n" not in reason for reason in report.broken.values())
