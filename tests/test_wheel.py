"""The wheel: built, looked into, and used in an environment of its own, outside the checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest
from PIL import Image

import zoo

ROOT = Path(zoo.__file__).parents[1]
LITE = "tf_efficientnet_lite0.in1k"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


def test_contents(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        for recipe in (*ROOT.glob("configs/*.toml"), ROOT / "configs" / "recipe.schema.json"):
            assert archive.read(f"zoo/recipes/{recipe.name}") == recipe.read_bytes()
        metadata = archive.read(f"timm_attention_zoo-{zoo.__version__}.dist-info/METADATA").decode()
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "zoo").rglob("*.py")}
    assert modules <= names and {"zoo/py.typed", "zoo/weights/weights.json", f"zoo/weights/{LITE}.LICENSE"} <= names
    assert {name for name in names if not name.startswith("zoo/")} == set()  # no tests, no scripts
    assert {Path(name).suffix for name in names} <= {
        *(".py", ".toml", ".json", ".csv", ".md", ".typed", ".safetensors", ".LICENSE")
    }
    head = HeaderParser().parsestr(metadata)
    assert (head["Name"], head["Version"]) == ("timm-attention-zoo", zoo.__version__)
    assert head["Description-Content-Type"] == "text/markdown"
    assert metadata.endswith((ROOT / "README.md").read_text(encoding="utf-8"))
    needed = {re.split(r"[<>=;\[ ]", need)[0] for need in head.get_all("Requires-Dist", []) if "extra ==" not in need}
    assert {"click", "pydantic", "timm", "tomli-w", "torch"} <= needed


@pytest.mark.every
def test_quickstart_and_predict_from_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, symlinks=True)  # without pip, as this environment's is used
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True)
    # The dependencies are those of this environment. Python reads no .pth files in a folder that one names, so that
    # the checkout, if it is installed here as editable, is not seen there.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=clean)
        assert done.returncode == 0, done.stderr
        return done.stdout

    program = environment / "bin" / "zoo"
    assert run(python, "-c", "import zoo; print(zoo.__file__)").strip() == str(site / "zoo" / "__init__.py")
    assert run(program, "--version") == f"zoo {zoo.__version__}\n"
    short = ("--set", "epochs=1", "--set", "warmup_epochs=0.5", "--set", "device=cpu")
    said = run(program, "train", "quickstart", *short)
    assert "run: runs/quickstart (report.html shows the curves" in said
    left = {path.name for path in (folder / "runs" / "quickstart").iterdir()}
    assert {"recipe.toml", "metrics.csv", "report.html", "model"} <= left
    assert (folder / "runs" / "quickstart" / "model" / "README.md").is_file()
    Image.new("L", (16, 16), 200).save(folder / "digit.png")
    assert re.match(r"digit\.png: \d \d+\.\d %, ", run(program, "predict", "runs/quickstart", "digit.png"))
