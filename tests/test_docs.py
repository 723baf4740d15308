"""README.md does what it says, and the other papers of the project agree with it."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import timm
import torch
from conftest import SHARED
from PIL import Image
from safetensors.torch import save_file

import zoo
from zoo.training.job import create_model
from zoo.training.recipe import load_recipe, make_recipe

ROOT = Path(zoo.__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", README, re.DOTALL)
sys.path.insert(0, str(ROOT / "scripts"))


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("resnet50").state_dict(), "resnet50.safetensors")
    names: dict[str, object] = {}
    for language, block in BLOCKS:
        if language == "python":
            lines = [line for line in block.splitlines() if "from the Hub" not in line]
            exec("\n".join(lines), names)
    assert isinstance(names["model"], torch.nn.Module)


def test_commands_exist() -> None:
    for language, block in BLOCKS:
        if language != "bash":
            continue
        for command in re.split(r"&&|\n", block):
            words = shlex.split(command)
            if not words:
                continue
            known = ("pip", "zoo", "pytest", "python", "torchrun", "sbatch", "HEAD=node-a:29500")
            assert words[0] in known, command
            for word in words[1:]:
                if word.startswith(("configs/", "scripts/")):
                    assert (ROOT / word).exists(), command


def test_every_ablation_can_be_run() -> None:
    import ablation_runs
    import ablations

    base = vars(load_recipe(ROOT / "configs" / "cifar100_resnet20_short.toml", ablation_runs.SETTINGS))
    names = set()
    for table, row, name in ablations.networks("resnet20_cifar"):
        recipe = make_recipe({**base, "model": name, "attn_kwargs": dict(row.attn_kwargs)})
        with torch.device("meta"):
            create_model(recipe, 100)
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


def test_layout_names_every_file() -> None:
    layout = README.split("## Layout")[1]
    for path in [*(ROOT / "zoo").glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        assert path.name in layout or path.name == "__init__.py", path.name


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
        assert measured.difference < 1e-4
    assert [m.difference for m in others[:2]] == [0, 0]
