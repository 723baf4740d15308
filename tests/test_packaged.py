"""Weights inside the package: read without a network by every name that starts from them; how they come there."""

import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from shapes import draw_shapes

import zoo
from zoo.cli import main
from zoo.errors import UserError
from zoo.inference import evaluate_images, load_trained, open_part
from zoo.release.manifest_row import config_of
from zoo.release.publish import publish_all
from zoo.release.target import Target
from zoo.weights.download import packaged
from zoo.weights.form import form_of
from zoo.weights.manifest import WEIGHTS, read_manifest, write_manifest

PLAIN = "tf_efficientnet_lite0"
ROOT = Path(zoo.__file__).parents[1]
FILE = WEIGHTS.with_name(f"{PLAIN}.in1k.safetensors")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("name", [f"se_{PLAIN}", f"cbam_{PLAIN}.warm_in1k", f"bam_{PLAIN}", "with_attention"])
def test_equal_to_the_plain_network_to_the_bit(name: str) -> None:
    put = {"backbone": PLAIN, "attention": "eca"} if name == "with_attention" else {}
    plain = timm.create_model(PLAIN).eval()
    plain.load_state_dict(load_file(FILE))
    images = torch.randn(1, 3, 96, 96)
    model = timm.create_model(name, pretrained=True, **put).eval()
    assert torch.equal(model(images), plain(images)) and model.pretrained_cfg["num_classes"] == 1000


def test_the_hub_is_asked_where_somebody_says_so() -> None:
    cfg = timm.get_pretrained_cfg(f"cbam_{PLAIN}")
    (row,) = (row for row in read_manifest() if row.model == PLAIN)
    assert cfg and packaged(cfg) == row
    with pytest.raises(UserError, match="so the Hub is not asked"):
        timm.create_model(f"cbam_{PLAIN}", pretrained=True, pretrained_cfg_overlay={"source": "hf-hub"})


def test_what_lies_beside_it() -> None:
    """Its notice names who made it and what was changed, and the card what it knows and what not."""
    notice, card = (FILE.with_name(f"{PLAIN}.in1k.{end}").read_text(encoding="utf-8") for end in ("LICENSE", "md"))
    assert "Apache License" in notice and "ML Illustrated" in notice and "rounded to half precision" in notice
    assert "The attention knows" in " ".join(card.split()) and "74.85 %" in card
    assert all(value.dtype in (torch.float16, torch.int64) for value in load_file(FILE).values())


def test_names_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photo, *_) = sorted(draw_shapes(tmp_path / "photos", count=4).rglob("*.png"))
    assert main(["list", f"*_{PLAIN}"]) == 0
    assert capsys.readouterr().out.count("warm_in1k (9.4 MB, apache-2.0)") == 3
    assert main(["predict", f"cbam_{PLAIN}.warm_in1k", str(photo), "--device", "cpu"]) == 0
    assert " %, " in capsys.readouterr().out
    assert main(["verify", f"cbam_{PLAIN}.warm_in1k"]) == 0
    assert "compared with the weights manifest" in capsys.readouterr().out


def test_fine_tuning_starts_from_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --weights; where the package lies is nobody's business."""
    photos = draw_shapes(tmp_path / "photos", parts=("train", "val"), count=4)
    short = ["--epochs", "1", "--set", "image_size=64", "--set", "device=cpu", "--set", "workers=0"]
    run = tmp_path / "run"
    assert main(["finetune", f"cbam_{PLAIN}", str(photos), *short, "--out", str(run)]) == 0
    assert "from the weights of its tag" in capsys.readouterr().err
    assert not [file for file in run.rglob("*.[jmt]*") if str(WEIGHTS.parent).encode() in file.read_bytes()]


def test_others_weights_are_not_published(tmp_path: Path) -> None:
    manifest = shutil.copytree(WEIGHTS.parent, tmp_path / "weights") / WEIGHTS.name
    write_manifest([row for row in read_manifest() if row.model == PLAIN], manifest)
    said: list[str] = []
    assert publish_all("org", Target(repo="org/any"), say=said.append, manifest=manifest) == []
    assert said == [f"{PLAIN}.in1k: others have published it, as timm/{PLAIN}.in1k"]


def test_the_median_of_the_seeds_is_rounded_measured_and_packaged(
    digits_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import package_weights

    def seed(number: int, top1: float) -> Path:
        run = Path(shutil.copytree(digits_run, tmp_path / f"s{number}"))
        config = json.loads((run / "model" / "config.json").read_text())
        config["zoo"]["result"]["top1"], config["zoo"]["recipe"]["seed"] = top1, number
        (run / "model" / "config.json").write_text(json.dumps(config))
        return run

    runs = [seed(0, 96.0), seed(1, 91.0), seed(2, 93.0)]
    manifest = tmp_path / "weights" / "weights.json"
    manifest.parent.mkdir()
    manifest.write_text("[]")
    for _ in range(2):  # the second time changes nothing
        row = package_weights.package(runs, "digits", "digits", "apache-2.0", manifest=manifest)
        assert read_manifest(manifest) == (row,)
    path = row.path(manifest)
    assert path and row.name == "cbam_resnet20_cifar.digits" and row.bytes == path.stat().st_size < 600_000
    assert row.recipe["seed"] == 2 and row.result["top1_of_seeds"] == {"2": 93.0, "0": 96.0, "1": 91.0}
    assert row.result["n"] == 359 and row.attn_kwargs == {"neutral": True} and form_of(path)
    trained, halved = load_trained(str(runs[2])), load_file(path)
    kept = trained.network.state_dict()
    assert all(torch.equal(value, kept[name].to(value.dtype)) for name, value in halved.items())
    trained.network.load_state_dict(halved)
    images, classes, _ = open_part(runs[2], "digits")
    assert evaluate_images(trained, images, classes).top1 == row.result["top1"] != 93.0
    assert row.gates["n"] == 359 and row.gates["top1"] == pytest.approx(row.result["top1"], abs=1e-4)
    assert config_of(row)["zoo"]["gates"] == row.gates, "the card says what they do"
