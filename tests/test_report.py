"""The page of a run: what it says, that it needs nothing from elsewhere, and how it looks in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.cli import main
from zoo.inference import evaluate_images, load_trained, open_part
from zoo.report import figures
from zoo.report.look import look_again

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def run(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its pages, written by the command."""
    run = tmp_path_factory.mktemp("reported") / "run"
    shutil.copytree(digits_run, run)
    assert main(["report", str(run)]) == 0
    return run


def test_what_lies_beside_the_page(run: Path) -> None:
    for name, kind in {
        "results.png": "PNG",
        "confusion_matrix.png": "PNG",
        "train_batch0.jpg": "JPEG",
        "val_batch0_pred.jpg": "JPEG",
    }.items():
        with Image.open(run / name) as picture:
            assert picture.format == kind and min(picture.size) >= 300
    pictures = sorted(path.name for path in (run / "model").iterdir() if path.suffix in (".png", ".jpg"))
    assert pictures == ["confusion_matrix.png", "results.png"], "a card shows no photographs of the user's"


def test_the_page_says_it_all(run: Path) -> None:
    page = (run / "report.html").read_text()
    heads = re.findall("<h[123]>(.*?)</h[123]>", page)
    assert heads == [
        "cbam_resnet20_cifar on digits",
        "Training",
        "Answers",
        "Worst classes",
        "Held-out images",
        "Most confident mistakes",
        "Attention",
        "A training batch, as the network saw it",
        "Speed and memory",
        "Recipe",
        "Environment",
        "Load, look, publish",
    ]
    facts = json.loads((run / "model" / "config.json").read_text())["zoo"]
    assert facts["gates"]["n"] == 359 and facts["gates"]["sentence"] in page
    assert facts["gates"]["sentence"] in (run / "model" / "README.md").read_text()
    elsewhere = {url for url in re.findall(r'https?://[^"\s<]+', page) if "www.w3.org" not in url}
    assert not elsewhere and "<script" not in page and "@import" not in page
    names = re.findall(r'\bid="([^"]+)"', page)
    assert len(names) == len(set(names)), "two figures use one name"


def test_it_counts_what_evaluation_counts(run: Path) -> None:
    look = look_again(run)
    images, classes, _ = open_part(run, "digits")
    score = evaluate_images(load_trained(str(run)), images, classes)
    np.testing.assert_array_equal(look.confusion, score.confusion.numpy())
    assert look.n == look.whole == 359
    worst = look.worst_mistakes(3)
    assert (look.answers[worst] != look.labels[worst]).all() and (look.confidence[worst].diff() <= 0).all()
    x = torch.cat([x for x, _ in look.batches])
    assert torch.equal(look.images([300, 2]), x[[300, 2]])


def test_names_of_classes_are_no_formulas() -> None:
    prices = ["$", "$$", "$x_$", r"$\frac{$"]
    assert figures.png(figures.confusion(np.eye(4, dtype=int), prices)).startswith(b"\x89PNG")


def test_a_run_whose_data_is_gone(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "run"
    shutil.copytree(run, moved)
    config = json.loads((moved / "model" / "config.json").read_text())
    config["zoo"]["recipe"]["data"] = "/nowhere"
    (moved / "model" / "config.json").write_text(json.dumps(config))
    assert main(["report", str(moved)]) == 0
    page = (moved / "report.html").read_text()
    assert "was not looked at again: there is no data &#x27;/nowhere&#x27;" in page and "<h2>Training</h2>" in page


def test_several_runs(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    places = {}
    for name, seed, top1 in (("a", 0, 90.0), ("b", 1, 92.0), ("plain", 0, 89.5), ("plain2", 1, 91.5)):
        places[name] = str(tmp_path / name)
        shutil.copytree(run, tmp_path / name)
        config = json.loads((tmp_path / name / "model" / "config.json").read_text())
        config["zoo"]["recipe"] |= {
            "seed": seed,
            "model": "resnet20_cifar" if "plain" in name else "cbam_resnet20_cifar",
        }
        config["zoo"]["result"]["top1"] = top1
        (tmp_path / name / "model" / "config.json").write_text(json.dumps(config))
    out, ours = tmp_path / "several.html", [places["a"], places["b"]]
    assert main(["report", *ours, "--baseline", places["plain"], places["plain2"], "--out", str(out)]) == 0
    page = out.read_text()
    assert '<span class="big">91.00 ± 1.41 %</span>' in page
    assert "Baseline resnet20_cifar: 90.50 ± 1.41 %. Difference of the means: +0.50 points, less than" in page
    assert "Seed by seed: +0.50 ± 0.00 points over 2 pairs." in page
    for wrong, says in (
        ([places["a"], places["a"]], "a has the seed 0 again; seeds must differ"),
        ([str(tmp_path)], f"{tmp_path} is no run that is complete"),
    ):
        assert main(["report", *wrong]) == 2
        assert says in capfd.readouterr().err


MEASURE = """<script>
document.body.style.maxWidth = 'WIDTHpx';  // a headless window is 500 pixels wide at least
const texts = [...document.querySelectorAll('svg text')].filter(text => text.textContent.trim());
const upright = texts.filter(text => !(text.getAttribute('transform') || '').match(/rotate\\(-(?!0)/));
document.title = JSON.stringify({
  page: document.body.scrollWidth, window: document.body.clientWidth,
  smallest: Math.min(...upright.map(text => text.getBoundingClientRect().height)),
  shapes: document.querySelectorAll('svg path').length,
  broken: [...document.images].filter(image => !image.naturalWidth).length,
  regions: document.querySelectorAll('.scroll:not([tabindex])').length});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [390, 1200])
def test_in_a_browser(width: int, run: Path, tmp_path: Path) -> None:
    """Nothing runs off the page, no letter is too small, every picture is whole."""
    framed = tmp_path / "framed.html"
    page = (run / "report.html").read_text().replace("</html>", MEASURE.replace("WIDTH", str(width)) + "</html>")
    framed.write_text(page)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", f"--window-size={width},900"]
    said = subprocess.run(
        [str(CHROMIUM), *flags, "--dump-dom", framed.as_uri()], capture_output=True, text=True, timeout=120
    ).stdout
    found = re.search(r"<title>(\{.*?\})</title>", said)
    assert found, said[:300]
    measured = json.loads(found[1])
    assert measured["page"] <= measured["window"] <= width
    assert measured["smallest"] >= 9 and measured["shapes"] > 50
    assert measured["broken"] == measured["regions"] == 0
