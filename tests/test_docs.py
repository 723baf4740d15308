"""Each README.md does what it says, and the other papers of the project agree with them.

Blocks of code are run as they stand, in the order of the page, in a folder with the data that they name. Two kinds of
lines are left out, and a reader of the page can tell which: lines of Python with "from the Hub", and blocks marked
```sh, which need the Hub, a GPU, several machines or minutes. Of those it is checked that programs, verbs, options,
recipes and files exist. So: ```bash runs, ```sh is checked.
"""

import csv
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import SHARED
from PIL import Image
from safetensors.torch import save_file
from shapes import TINY, draw_shapes, rods_and_balls_of

import zoo
from zoo.cli import main
from zoo.training.recipe_file import find_recipe, load_recipe, make_recipe, parse_overrides
from zoo.training.start import train
from zoo.training.starting_model import create_model

ROOT = Path(zoo.__file__).parents[1]
READMES = sorted(path for folder in ("", "zoo/**/", "scripts/**/") for path in ROOT.glob(f"{folder}README.md"))
PAGES = [*READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "scripts" / "ablations.md"]
FRONT = (ROOT / "README.md").read_text(encoding="utf-8")
sys.path.insert(0, str(ROOT / "scripts"))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, code) of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(block: str) -> Iterator[list[str]]:
    """The words of each command, without what is set or written around it."""
    for line in re.split(r"&&|\n", block.replace("\\\n", " ")):
        words = shlex.split(line)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            del words[0]
        if words:
            yield words


@pytest.fixture(scope="module")
def laid_down(tmp_path_factory: pytest.TempPathFactory, digits_run: Path) -> Path:
    """A folder with the data, weights and runs that the pages name, all small or random."""
    root = tmp_path_factory.mktemp("laid down")
    photos = draw_shapes(root / "photos", parts=("train", "val", "test"), count=8)
    (root / "new_photos").mkdir()
    for k, photo in enumerate(sorted((photos / "test").rglob("*.png"))[:3]):
        shutil.copy(photo, root / "new_photos" / f"{k}.png")
    with (root / "photos.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "species"))
        table.writerows((path.relative_to(root), path.parent.name) for path in sorted(photos.rglob("train/*/*.png")))
    volumes, labels = rods_and_balls_of(24)
    for k, volume in enumerate(volumes):
        volume.flat[k] ^= True  # so that no two are the same
    parts = {"train": slice(8, None), "test": slice(8)}
    arrays: dict[str, Any] = {f"{part}_images": volumes[rows] for part, rows in parts.items()}
    np.savez(root / "scans.npz", **arrays, **{f"{part}_labels": labels[rows] for part, rows in parts.items()})
    for model in ("resnet18", "resnet50"):
        save_file(timm.create_model(model).state_dict(), root / f"{model}.safetensors")
    shutil.copytree(digits_run, root / "runs" / "quickstart")
    train(make_recipe({**vars(TINY), "data": str(photos), "epochs": 1, "warmup_epochs": 0.0}), root / "runs" / "photos")
    return root


@pytest.mark.parametrize("page", READMES, ids=name_of)
def test_blocks_run(page: Path, laid_down: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(laid_down, tmp_path, dirs_exist_ok=True, copy_function=os.link)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    makes_a_model = False
    for language, block in blocks(page):
        assert language in ("python", "bash", "sh"), f"a block of {page} is marked {language!r}"
        if language == "python":
            lines = [line for line in block.splitlines() if "from the Hub" not in line]
            exec("\n".join(lines), names)
            makes_a_model |= any(line.startswith("model = ") for line in lines)
        elif language == "bash":
            for program, *words in commands(block):
                assert program == "zoo", f"{program} in {page}: only the zoo's commands run here; mark the block sh"
                assert main(words) == 0, words
    assert isinstance(names.get("model"), torch.nn.Module) == makes_a_model


PROGRAMS = ("pip", "zoo", "pytest", "python", "torchrun", "sbatch", "ruff", "pyright", "export", "git", "hf")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_commands_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the blocks that run, too: it costs nothing."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for language, block in blocks(page):
        if language == "python":
            continue
        for words in commands(block):
            program, said = words[0], " ".join(words)
            assert program in PROGRAMS or (ROOT / program).is_file(), said
            for word in words:
                if word.startswith(("configs/", "scripts/", ".ci/")):
                    assert any(ROOT.glob(re.sub(r"\{.*?\}", "*", word))), said
            for extra in re.findall(r"^\.\[(.*)\]$", words[-1]):
                assert set(extra.split(",")) <= set(extras), said
            if "zoo" in words[: words.index("-m") + 2 if "-m" in words else 1]:
                check_verb(words[words.index("zoo") + 1 :], capsys)
            elif program == "python" and words[1].startswith("scripts/"):
                beside = (ROOT / words[1]).parent.glob("*.py") if "gpu/" in words[1] else [ROOT / words[1]]
                source = "".join(path.read_text(encoding="utf-8") for path in beside)
                for option in (word for word in words if word.startswith("--")):
                    assert f'"{option}"' in source, said


def check_verb(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The verb and its options are in its help, its recipe is there, and what is set has the right type."""
    verb, *rest = words
    try:
        assert main([verb, "--help"]) == 0
    except SystemExit as ended:
        assert ended.code == 0, words
    shown = capsys.readouterr().out
    for option in (word for word in rest if word.startswith("--")):
        assert option in shown, words
    parse_overrides(value for key, value in pairwise(rest) if key == "--set")
    if verb == "train" and not rest[0].startswith(("--", "runs/")):
        assert find_recipe(rest[0]).is_file()


def test_scripts_in_the_text_exist() -> None:
    for page in PAGES:
        for script in re.findall(r"\bscripts/[\w/]+\.\w+", page.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file(), f"{page}: {script}"


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of the headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "http://")):
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists() and there.is_relative_to(ROOT), target
            assert not anchor or anchor in anchors(there), target


def test_every_room_and_every_script_is_named() -> None:
    rooms = [path.parent for path in (ROOT / "zoo").glob("*/__init__.py")]
    for room in rooms:
        assert f"zoo/{room.name}/" in FRONT, room.name
    for path in (ROOT / "zoo").glob("*.py"):
        assert f"`zoo/{path.name}`" in FRONT or path.name == "__init__.py", path.name
    named = {room: room / "README.md" for room in rooms if (room / "README.md").exists()}
    named |= {ROOT / "scripts": ROOT / "scripts" / "README.md"}
    for folder, page in named.items():
        text = page.read_text(encoding="utf-8")
        packages = (path.parent for path in folder.glob("*/__init__.py"))
        for path in [*folder.glob("*.py"), *folder.glob("*.sh"), *folder.glob("*.sbatch"), *packages]:
            assert path.name in text or path.name == "__init__.py", f"{path} is not named in {page}"


def test_before_and_after() -> None:
    """The figure of the front page on a random network: its own script, without the training."""
    import before_after

    plain = timm.create_model("resnet20_cifar", num_classes=10)
    for name, buffer in (*plain.named_parameters(), *plain.named_buffers()):
        if ".bn" in name or name.startswith("bn"):
            torch.nn.init.uniform_(buffer.data, 0.5, 1.5) if buffer.is_floating_point() else None
    plain.eval()
    images = torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        reference = plain(images)
        for attention in before_after.ATTENTIONS:
            before, after = (way(plain.state_dict(), attention, 0)(images) for way in before_after.WAYS.values())
            assert torch.equal(after, reference) and not torch.allclose(before, reference, rtol=0.1)


def test_every_ablation_can_be_run() -> None:
    import ablation_runs
    import ablations

    base = vars(load_recipe(ROOT / "configs" / "cifar100_resnet20_short.toml", ablation_runs.SETTINGS))
    names = set()
    for table, row, name in ablations.networks("resnet20_cifar"):
        recipe = make_recipe({**base, "model": name, "attn_kwargs": dict(row.attn_kwargs)})
        with torch.device("meta"):
            create_model(recipe, [str(k) for k in range(100)])
        names.add(ablations.run_name(name, row.attn_kwargs))
        assert name.startswith((row.model or table.model).removesuffix("resnet50").removesuffix("resnet50_cifar"))
    assert "cbam_resnet20_cifar-arrangement=channel-channel_pool=avg" in names and len(names) == 26


def test_regions_are_drawn_where_the_network_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import draw_regions

    monkeypatch.setattr(sys, "argv", ["draw_regions.py", "--out", str(tmp_path / "regions.png")])
    draw_regions.main()
    model = timm.create_model("hacnn").eval()
    boxes = draw_regions.regions(model, torch.randn(1, 3, 160, 64))
    down = torch.tanh(torch.tensor([-0.75, -0.25, 0.25, 0.75]))
    expected = torch.stack((torch.zeros(4), (down - 0.25 + 1) / 2, torch.ones(4), (down + 0.25 + 1) / 2), 1)
    for level in boxes:
        torch.testing.assert_close(level, expected)
    with Image.open(tmp_path / "regions.png") as sheet:
        assert sheet.size[0] == 3 * 320


def test_versions_agree() -> None:
    assert f"## {zoo.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {zoo.__version__}" in (ROOT / "CITATION.cff").read_text()
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["name"] == "timm-attention-zoo"


def test_timm_suite_knows_its_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The rest of it needs the registry: .ci/run runs a representative set."""
    import timm_suite

    monkeypatch.setattr(sys, "argv", ["timm_suite.py", "no_such_model"])
    with pytest.raises(SystemExit) as ended:
        timm_suite.main()
    assert ended.value.code == 2 and "no model of the zoo for images matches no_such_model" in capsys.readouterr().err


WEIGHTS = SHARED / "weights" / "mobilenetv2_100.coral_dequant.safetensors"
IMAGES = SHARED / "data" / "imagenet_sample_1k" / "images.tar"


@pytest.mark.skipif(not (WEIGHTS.exists() and IMAGES.exists()), reason="real weights and images are not here")
def test_warm_start_on_real_weights_and_images() -> None:
    from warm_start_table import measure

    plain, *others = measure(WEIGHTS, IMAGES, limit=50).values()
    assert plain.n == 50 and plain.top1 > 75
    for measured in others:
        assert (measured.top1, measured.top5) == (plain.top1, plain.top5)
        assert max(measured.logits, measured.features) < 1e-3
    assert all(m.logits == m.features == 0 for m in others[:-1]), "all but HA are exact"
