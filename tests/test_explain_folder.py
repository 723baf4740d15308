"""`zoo explain`: which part of a picture goes in, the figure, the raw values beside it, and wrong input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform
from timm.models import save_for_hf

import zoo
from zoo.cli import main
from zoo.data.input_spec import input_spec
from zoo.explain.cam import grad_cam, last_map
from zoo.explain.figure import explain_figure
from zoo.explain.picture import open_picture, seen_box
from zoo.explain.view import look_at
from zoo.inference import Trained, load_trained


@pytest.mark.parametrize(
    ("crop_mode", "crop_pct", "size", "box"),
    [
        ("center", 1.0, (60, 40), (10, 0, 50, 40)),
        ("center", 0.5, (40, 40), (10, 10, 30, 30)),
        ("center", 0.875, (40, 80), (2.5, 22.5, 37.5, 57.5)),
        ("squash", 1.0, (60, 40), (0, 0, 60, 40)),
        ("border", 1.0, (60, 40), (0, -10, 60, 50)),
    ],
)
def test_which_part_of_a_picture_goes_in(crop_mode: str, crop_pct: float, size: Any, box: Any) -> None:
    config = {"input_size": (3, 32, 32), "crop_pct": crop_pct, "crop_mode": crop_mode, "interpolation": "bilinear"}
    assert seen_box(config, size) == pytest.approx(box, abs=1.6), "to a pixel or two of the picture"


def test_it_lies_where_the_transform_takes_it(tmp_path: Path) -> None:
    """A white spot on a turned, long picture is found where the box says that it is."""
    pixels = np.zeros((90, 200, 3), np.uint8)
    pixels[40:48, 120:128] = 255  # as it is to be seen
    exif = Image.Exif()
    exif[274] = 6  # turn by a quarter to the right
    Image.fromarray(pixels).rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    config = {
        "input_size": (3, 64, 64),
        "crop_pct": 0.9,
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "interpolation": "bilinear",
    }
    picture = open_picture(tmp_path / "turned.png", config, input_spec(plain_network()))
    assert picture.shown.shape == (90, 200, 3) and picture.x.shape == (1, 3, 64, 64)
    row, column = divmod(int(picture.x[0, 0].argmax()), 64)
    left, top, right, bottom = picture.box
    assert 119 <= left + (column + 0.5) * (right - left) / 64 <= 129
    assert 39 <= top + (row + 0.5) * (bottom - top) / 64 <= 49


def plain_network() -> Any:
    return timm.create_model("resnet20_cifar", num_classes=10)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of every sort that a folder of a user may hold."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(folder / "a.png")
    (folder / "text.png").write_text("no picture")
    image.crop((0, 0, 1, 1)).save(folder / "one.png")
    return folder


def test_a_folder_of_pictures(
    digits_run: Path, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["explain", str(digits_run), str(pictures), "--out", str(out)]
    assert main([*arguments, "--compare", str(digits_run), "--measure"]) == 0
    said = capfd.readouterr()
    assert f"1 figure in {out}, such as {out / 'a.png'}" in said.out and "random" in said.out
    assert "one.png is 1x1 pixels: there is nothing on it" in said.err and "text.png: it is no image" in said.err
    assert sorted(path.name for path in out.iterdir()) == ["a.npz", "a.png", "manifest.json"]
    trained = load_trained(str(digits_run))
    x: Any = create_transform(**trained.config)(Image.open(pictures / "a.png"))  # pyright: ignore[reportCallIssue]
    maps = zoo.attention_maps(trained.network, x[None])
    arrays, about = np.load(out / "a.npz"), json.loads((out / "manifest.json").read_text())
    assert "grad_cam" in arrays and "compared/grad_cam" in arrays and arrays["box"].shape == (4,)
    described = about["pictures"]["a"]["models"][0]
    for path, found in maps.items():
        for name, gate in found.values.items():
            torch.testing.assert_close(torch.from_numpy(arrays[f"{path}/{name}"]), gate[0])
            assert described["gates"][f"{path}.{name}"]["start"] == 1
    assert described["classes"][0][0] in trained.labels and len(about["left_out"]) == 2
    assert about["faithfulness"].keys() == {"gates", "grad_cam", "random"}
    with Image.open(out / "a.png") as figure:
        assert figure.width >= 1000 and len(np.unique(np.asarray(figure.convert("RGB").resize((99, 99))))) > 100
    assert main(arguments) == 2
    assert "is there already; give another folder" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("model", "images", "says"),
    [
        ("run", "text.png", "zoo: none of 1 files can be read by it"),
        ("run", "more", "zoo: there are no pictures there"),
        ("run", "gone.png", "zoo: there is no file or folder"),
        ("plain", "a.png", "zoo: CifarResNet has no attention of the zoo"),
    ],
)
def test_wrong_input(
    model: str,
    images: str,
    says: str,
    digits_run: Path,
    pictures: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = digits_run
    if model == "plain":
        source = tmp_path / "plain"
        save_for_hf(plain_network(), str(source), safe_serialization=True)
    out = tmp_path / "out"
    assert main(["explain", str(source), str(pictures / images), "--out", str(out)]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(says)
    assert not out.exists() and list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(("model", "shape"), [("hacnn", (3, 160, 64)), ("cbam_resnet18_volume", (1, 32, 32, 32))])
def test_grad_cam_of_networks_that_crop_and_of_volumes(model: str, shape: tuple[int, ...]) -> None:
    """The last map of `hacnn` is of its regions, several an image: the last one of whole images is taken."""
    pytest.importorskip("torchcam")
    network = timm.create_model(model, num_classes=3).requires_grad_(False).train()
    cam = grad_cam(network, torch.randn(2, *shape), [0, 2])
    assert len(cam) == 2 and cam.ndim == len(shape) and network.training
    assert cam.min() >= 0 and cam.max() <= 1


def test_a_network_that_is_not_finite(pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network: Any = timm.create_model("cbam_resnet20_cifar", num_classes=3)
    torch.nn.init.constant_(network.layer3[0].se.channel.fc2.weight, float("nan"))
    save_for_hf(network, str(tmp_path / "nan"), safe_serialization=True)
    command = ["explain", str(tmp_path / "nan"), str(pictures / "a.png"), "--out"]
    assert main([*command, str(tmp_path / "out")]) == 0

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    about = json.loads((tmp_path / "out" / "manifest.json").read_text(), parse_constant=refuse)
    assert None in [gate["mean"] for gate in about["pictures"]["a"]["models"][0]["gates"].values()]
    pytest.importorskip("torchcam")
    assert main([*command, str(tmp_path / "measured"), "--measure"]) == 2
    assert "is not finite, so it cannot be measured; see zoo verify" in capfd.readouterr().err


@pytest.mark.parametrize("model", ["mambaout_femto", "test_convnext"])
def test_grad_cam_where_channels_come_last(model: str) -> None:
    """Of the map behind it, with its channels in front, it is the same."""
    pytest.importorskip("torchcam")
    network: Any = timm.create_model(model, num_classes=3).eval()
    assert grad_cam(network, torch.randn(1, 3, 96, 96), [1]).shape == (1, 3, 3)
    assert last_map(network, torch.randn(1, 3, 96, 96))[1] == (model == "mambaout_femto")


@pytest.mark.parametrize("columns", [4, 2])
def test_a_figure_is_laid_out_at_every_width(columns: int, tmp_path: Path) -> None:
    """Of a network with five maps over places, under four panels or two; matplotlib warns where it cannot."""
    Image.new("RGB", (40, 30), (200, 120, 40)).save(tmp_path / "a.png")
    network: Any = timm.create_model("cbam_mobilenetv2_050").eval()
    trained = Trained("model", network, {**timm.data.resolve_data_config(model=network), "input_size": (3, 64, 64)}, ())
    picture = open_picture(tmp_path / "a.png", trained.config, trained.spec)
    view = look_at(trained, picture)
    figure = explain_figure(picture, [view], columns)
    figure.savefig(tmp_path / "a.jpg", dpi=20)
    lefts = {round(panel.get_position().x0, 2) for panel in figure.axes[:4]}
    assert len(view.stages) == 5 and len(lefts) == columns
