"""`zoo demo`: what its page shows, by Chromium: on a desk and on a phone, by keyboard alone, without any network."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Page, opened
from PIL import Image

from zoo.data import DataError
from zoo.demo.examples import write_examples
from zoo.demo.look import DemoError, Shown, look
from zoo.explain.averaged import with_fixed_gates
from zoo.inference import load_trained

pytest.importorskip("gradio")


@pytest.fixture(scope="module")
def shown(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    trained = load_trained(str(digits_run))
    return Shown("run", trained, write_examples(trained, tmp_path_factory.mktemp("examples")))


PICTURES = {
    "grey.png": lambda: Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)),
    "deep.png": lambda: Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160),
    "clear.png": lambda: Image.new("RGBA", (30, 20), (200, 10, 10, 90)),
    "turned.jpg": lambda: Image.new("RGB", (40, 20)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_all_kinds(name: str, shown: Shown, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURES[name]().save(tmp_path / name, **({"exif": exif} if name == "turned.jpg" else {}))
    figure, (seen,) = look([shown], tmp_path / name)
    assert len(seen.classes) == 5 and "example pictures, the answer" in seen.averaged and figure.axes
    if name == "turned.jpg":
        assert shown.picture(tmp_path / name).said == "20x40 pixels"


def test_averages_are_those_of_the_examples(shown: Shown) -> None:
    """For one picture alone, fixing the gates at their averages changes nothing."""
    alone = Shown("run", shown.trained, shown.examples[:1])
    picture = alone.picture(shown.examples[0])
    with torch.no_grad():
        torch.testing.assert_close(
            with_fixed_gates(alone.trained.network, picture.x, alone.averages), alone.trained.network(picture.x)
        )


def test_what_is_refused(shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.png").write_text("hello")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("1", (8000, 6000)).save(tmp_path / "huge.png")
    for name, says in (
        ("text.png", "it is no image that Pillow knows"),
        ("dot.png", "is 1x1 pixels: there is nothing on it to be seen"),
        ("huge.png", "has 8000x6000 pixels; this page reads 40 million at most"),
    ):
        with pytest.raises(DataError, match=says):
            look([shown], tmp_path / name)


@pytest.fixture
def address(digits_run: Path) -> Iterator[str]:
    """Of the page, served by a process of its own, as a user starts it."""
    command = [sys.executable, "-m", "zoo", "demo", str(digits_run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        yield line.split()[0]
        process.terminate()  # Ctrl-C is ignored where a shell put the tests into the background
        assert process.wait(30) in (0, -signal.SIGTERM)


DELETING = """
import sys
from pathlib import Path
from gradio.processing_utils import move_files_to_cache
from gradio.route_utils import delete_files_created_by_app
from zoo.demo.page import serve

page = serve(sys.argv[1:], block=False)
[given] = [block for block in page.blocks.values() if type(block).__name__ == "File"]
for example in sorted(Path(page.folder.name, "examples").iterdir()):
    shown = move_files_to_cache(given.postprocess(str(example)).model_dump(), given, postprocess=True)
    delete_files_created_by_app(page, 0)
    print(example.name, example.is_file(), shown["path"] == str(example), Path(shown["path"]).exists())
page.close(verbose=False)
page.folder.cleanup()
"""
"""Gradio does so every ten minutes with what it was given, and with its copies. Its server leaves sockets open, so it
has a process of its own."""


def test_examples_outlive_what_is_given_to_the_page(digits_run: Path) -> None:
    command = [sys.executable, "-c", DELETING, str(digits_run)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    names = ["digit-0.png", "digit-3.png", "digit-7.png", "flower.png", "temple.png"]
    assert said == [f"{name} True False False" for name in names]


FOCUSED = "document.activeElement.innerText"
ANSWERED = "document.body.innerText.includes('the answer') && document.querySelectorAll('img').length > 0"
SHOWN = "[...document.querySelectorAll('button, img, label, p')]"
FIGURE = "(image => image.naturalWidth / image.naturalHeight)([...document.querySelectorAll('img')].at(-1))"
WIDE = f"{SHOWN}.filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"


@pytest.mark.every
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_by_keyboard_alone(address: str, tmp_path: Path) -> None:
    """Tab to an example and press Enter; then the same page as a phone shows it."""
    with opened(address, tmp_path / "profile") as page:
        page.size(1280, 900)
        page.wait("document.body.innerText.includes('Look')")
        for _ in range(30):
            page.key("Tab")
            if page.value(FOCUSED).strip() == "digit-0":
                break
        assert page.value(FOCUSED).strip() == "digit-0", "Tab does not reach the examples"
        page.key("Enter")
        page.wait(ANSWERED)
        assert page.value(WIDE) == 0 and look_at(page, tmp_path / "desk.png") > 1000
        page.size(390, 844)
        page.wait("innerWidth === 390")
        assert page.value(FIGURE) == 2, "four panels in a row"
        page.key("Enter")
        page.wait(f"{FIGURE} < 1")  # two in a row, so that they can be read
        assert page.value("document.documentElement.scrollWidth") <= 390 and page.value(WIDE) == 0
        assert look_at(page, tmp_path / "phone.png") > 1000
        elsewhere = [url for url in page.asked if not url.startswith((address, "data:", "blob:", "about:"))]
        assert not elsewhere, elsewhere


def look_at(page: Page, path: Path) -> int:
    """Takes a picture of the page, and counts its colours."""
    page.picture(path)
    with Image.open(path) as picture:
        return len(picture.convert("RGB").getcolors(1 << 24) or [])


def test_an_exported_file_has_nothing_to_look_into(shown: Shown) -> None:
    from zoo.inference.exported import About, ExportedNetwork

    config = {"pretrained_cfg": {}, "architecture": "x", "num_classes": 2}
    network = ExportedNetwork(lambda x: x, config, About(False, (), 0), "x.onnx")
    with pytest.raises(DemoError, match="is an exported file"):
        Shown("x.onnx", type(shown.trained)("x.onnx", network, {}, ()), [])
