"""zoo check-data finds what would spoil a training, on real files."""

import json
from pathlib import Path

import pytest
from PIL import Image
from shapes import draw_shapes

from zoo.cli import main
from zoo.data.check import check_data


def spoil(root: Path) -> Path:
    """One of everything that goes wrong with photographs."""
    disc = root / "train" / "disc"
    whole = disc.joinpath("0.png").read_bytes()
    disc.joinpath("truncated.png").write_bytes(whole[:70])
    disc.joinpath("empty.png").touch()
    disc.joinpath("text.jpg").write_text("not an image")
    root.joinpath("val", "disc", "leaked.png").write_bytes(whole)
    disc.joinpath("same again.png").write_bytes(whole)
    root.joinpath("train", "cross", "also a disc.png").write_bytes(disc.joinpath("1.png").read_bytes())
    Image.new("CMYK", (30, 30)).save(disc / "print.jpg")
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(disc / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("1", (12_000, 12_000)).save(disc / "bomb.png")
    Image.new("RGB", (4, 40)).save(disc / "sliver.png")
    for image in (root / "val" / "cross").iterdir():
        image.unlink()
    (root / "val" / "cross").rmdir()
    return root


def test_a_clean_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["check-data", str(draw_shapes(tmp_path, count=5))]) == 0
    said = capfd.readouterr().out
    assert "train: 10 images, 2 classes of 5 to 5" in said and "no problems found" in said
    assert main(["check-data", "digits"]) == 0
    assert "whole: 1797 images, 10 classes of 174 to 183" in capfd.readouterr().out


def test_a_spoiled_set(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = spoil(draw_shapes(tmp_path / "bilder ü", count=5))
    report = check_data(str(root))
    assert {Path(name).name for name in report.broken} == {"truncated.png", "empty.png", "text.jpg"}
    odd = {Path(name).name: reason for name, reason in report.suspicious.items()}
    assert odd.keys() == {"print.jpg", "moving.gif", "bomb.png", "sliver.png"}
    assert "CMYK" in odd["print.jpg"] and "2 frames" in odd["moving.gif"] and "very large" in odd["bomb.png"]
    groups = [sorted(Path(name).name for name in group) for group in report.duplicates]
    assert sorted(groups) == [["0.png", "leaked.png", "same again.png"], ["1.png", "also a disc.png"]]
    assert report.missing == {"val": ["cross"]}
    assert report.counts["train"] == {"cross": 6, "disc": 13}
    assert main(["check-data", str(root)]) == 1
    assert "truncated.png" in capfd.readouterr().out
    assert main(["check-data", str(root), "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["missing"] == {"val": ["cross"]}
    assert main(["check-data", str(tmp_path / "nowhere")]) == 2
