"""Evaluating and predicting with a trained run, as a user would."""

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from shapes import TINY, draw_shapes
from sklearn.metrics import f1_score

from zoo.cli import main
from zoo.data import DataError, open_held_out
from zoo.data.images import find_images
from zoo.inference.confusions import confusions
from zoo.inference.device import pick_device
from zoo.inference.evaluation import Score, evaluate, evaluate_images
from zoo.inference.held_out import open_part
from zoo.inference.prediction import predict
from zoo.inference.trained import ModelError, load_trained
from zoo.training.start import train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from dataclasses import replace

    folder = tmp_path_factory.mktemp("shapes")
    data = draw_shapes(folder / "data")
    return train(replace(TINY, data=str(data), epochs=8), folder / "run").directory


def test_eval_measures_what_training_did(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = run.parent / "data"
    assert main(["eval", str(run), str(data), "--json", "--workers", "0"]) == 0
    measured = json.loads(capfd.readouterr().out)
    last = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))[-1]
    for name in ("top1", "top5", "loss"):
        assert measured[name] == pytest.approx(float(last[f"val_{name}"]), rel=1e-4)
    assert measured["n"] == 48 and len(measured["confusion"]) == 2 and sum(map(sum, measured["confusion"])) == 48
    assert sum(measured["per_class"]) / 2 == pytest.approx(measured["top1"])
    assert measured["classes"] == ["cross", "disc"]
    wrong = sum(each["n"] for each in measured["confusions"])
    assert wrong == round(48 * (100 - measured["top1"]) / 100)
    table = run.parent / "results.csv"
    for _ in range(2):
        assert main(["eval", str(run / "model"), str(data / "val"), "--csv", str(table)]) == 0
        assert f"top-1 {measured['top1']:.2f} %" in capfd.readouterr().out
    head, row, again = table.read_text().splitlines()
    assert head == "model,top1,top1_err,top5,top5_err,param_count,img_size,crop_pct,interpolation"
    assert row == again and f",{measured['top1']:.3f},{100 - measured['top1']:.3f},100.000,0.000,0.28,16," in row
    assert main(["eval", str(run), str(data), "--part", "train"]) == 0
    assert "(train/ of the folder, which the run trained on)" in capfd.readouterr().out
    assert main(["eval", str(run), str(data), "--part", "test"]) == 2
    assert "has no part 'test'; it has train, val" in capfd.readouterr().err


def test_figures_against_their_definitions() -> None:
    logits, labels = 3 * torch.randn(200, 7), torch.randint(0, 7, (200,))
    network = torch.nn.Identity()
    network.num_classes = 7
    score = evaluate(network, [(logits[:150], labels[:150]), (logits[150:], labels[150:])])
    guesses, confidences = logits.argmax(1), logits.softmax(1).max(1).values
    assert score.top1 == pytest.approx(100 * (guesses == labels).float().mean().item())
    assert score.macro_f1 == pytest.approx(100 * f1_score(labels, guesses, average="macro"), rel=1e-5)
    gaps = 0.0
    for low in range(15):
        inside = (confidences * 15).long().clamp(max=14) == low
        if inside.any():
            gap = (confidences[inside].mean() - (guesses[inside] == labels[inside]).float().mean()).abs()
            gaps += gap.item() * inside.sum().item() / 200
    assert score.ece == pytest.approx(100 * gaps, rel=1e-4)
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert score.top5 == pytest.approx(100 * (ranks < 5).float().mean().item())


def test_the_worst_classes_and_confusions_are_named() -> None:
    counts = torch.tensor([[8.0, 2, 0, 0], [0, 5, 5, 0], [0, 0, 4, 0], [0, 0, 0, 0]])
    found = confusions(Score(0, 0, 0, 24, 0, counts), ["ant", "bee", "cat", "none"])
    assert found.worst == (("bee", 50.0, 10), ("ant", pytest.approx(80.0), 10))
    assert found.most == (("bee", "cat", 5), ("ant", "bee", 2))
    worst, most = found.text().splitlines()
    assert worst == "worst classes: bee 50.00 % of 10, ant 80.00 % of 10"
    assert most == "most often taken: bee for cat 5 times, ant for bee 2 times"
    right = confusions(Score(0, 100, 100, 4, 0, counts.diag().diag()), ["ant", "bee", "cat", "none"])
    assert right.text() == "" and not right.worst and not right.most


def test_device_size_and_precision(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data, table = run.parent / "data", tmp_path / "table.csv"
    assert pick_device() == (torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu"))
    common = ["eval", str(run), str(data), "--workers", "0", "--device", "cpu"]
    assert main([*common, "--image-size", "24x20", "--csv", str(table)]) == 0
    larger = evaluate_images(load_trained(str(run), size=(24, 20)), *open_part(str(run), str(data))[:2])
    assert f"top-1 {larger.top1:.2f} %" in capfd.readouterr().out
    assert ",24x20," in table.read_text()
    assert main([*common, "--amp", "bf16", "--json"]) == 0
    rounded = json.loads(capfd.readouterr().out)["loss"]
    exact = evaluate_images(load_trained(str(run)), *open_part(str(run), str(data))[:2]).loss
    assert rounded != exact and rounded == pytest.approx(exact, rel=0.05)
    picture = str(data / "val" / "disc" / "0.png")
    assert main(["predict", str(run), picture, "--image-size", "24", "--amp", "bf16", "--device", "cpu"]) == 0
    assert "disc " in capfd.readouterr().out


def test_classes_are_matched_by_name(run: Path, tmp_path: Path) -> None:
    trained = load_trained(str(run))
    whole = evaluate_images(trained, *open_held_out(str(run.parent / "data"))[:2])
    (tmp_path / "disc").mkdir()
    (tmp_path / "other").mkdir()
    for k in range(3):
        for name in ("disc", "other"):
            (tmp_path / name / f"{k}.png").write_bytes((run.parent / "data" / "val" / "disc" / f"{k}.png").read_bytes())
    says = "the data's 2 classes are disc, other, and .* knows 2: cross, disc, not 'other'; name .* by --by-order"
    with pytest.raises(DataError, match=says):
        evaluate_images(trained, *open_held_out(str(tmp_path))[:2])
    assert whole.n == 48


def test_predict_streams_and_passes_over_broken_files(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = run.parent / "mixed"
    folder.mkdir()
    for k in range(5):
        (folder / f"{k} grün.png").write_bytes((run.parent / "data" / "val" / "disc" / f"{k}.png").read_bytes())
    (folder / "2 broken.png").write_bytes(b"no image")
    Image.new("CMYK", (30, 20)).save(folder / "9 cmyk.jpg")
    found = list(predict(load_trained(str(run)), find_images([folder]), batch_size=3))
    assert [p.file.name for p in found if p.error] == ["2 broken.png"] and len(found) == 7
    for prediction in found:
        if not prediction.error:
            assert sum(p for _, p in prediction.classes) == pytest.approx(1, abs=1e-5)
            assert {name for name, _ in prediction.classes} == {"cross", "disc"}
    assert main(["predict", str(run), str(folder), "--top-k", "1"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 6 and "2 broken.png" in err and "4 grün.png: disc " in out
    assert main(["predict", str(run), str(folder / "0 grün.png"), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["classes"][0][0] in ("cross", "disc")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict", "cbam_resnet110_cifar", "x.png"], "cbam_resnet110_cifar has no weights yet"),
        (["predict", "cbam_resnet5", "x.png"], "unknown model 'cbam_resnet5'"),
        (["eval", "some/where", "digits"], "a repository on the Hub is hf-hub:some/where"),
        (["eval", "cbam_resnet20_cifar", "/nowhere"], "there is no data '/nowhere'"),
    ],
)
def test_mistakes(arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert says in capfd.readouterr().err


def test_a_missing_file_is_named(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run), "missing.png"]) == 2
    assert "no file or folder missing.png" in capfd.readouterr().err
    with pytest.raises(ModelError):
        load_trained(str(run.parent / "data"))
