"""`zoo publish --space`: the files of a Space, by the real client on loopback, and the page that they start."""

import asyncio
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from conftest import WRITER
from hub_server import Hub
from huggingface_hub import hf_hub_download

import zoo
from zoo.cli import main
from zoo.release.space import FILES, GRADIO

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
REPO = "me/cbam_resnet20_cifar.digits"
SPACE = f"spaces/{REPO}"
Publish = Callable[..., tuple[int, str]]


@pytest.fixture
def publish(hub: Hub, digits_run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Publish:
    (tmp_path / "run").symlink_to(digits_run)

    def run(*options: str) -> tuple[int, str]:
        code = main(["publish", str(tmp_path / "run"), "--repo", REPO, "--space", *options])
        out, err = capfd.readouterr()
        assert WRITER not in out + err and "Traceback" not in err
        return code, out + err

    return run


def test_a_space_beside_the_weights(hub: Hub, publish: Publish, tmp_path: Path) -> None:
    """One commit with a card that the Hub reads; the next release changes the page's model, and no owner's file."""
    code, says = publish("--tag", "v1")
    assert code == 0 and f"Try it: {hub.url}/spaces/{REPO}" in says, says
    space = hub.repos[SPACE]
    files = {path: file.data.decode() for path, file in space.head.files.items()}
    assert {*files} == {*FILES, ".gitattributes"} and space.head.parent and not space.private
    front = yaml.safe_load(files["README.md"].split("---")[1])
    assert (front["sdk"], front["sdk_version"], front["python_version"]) == ("gradio", GRADIO, "3.11")
    assert front["models"] == [REPO] and front["app_file"] == "app.py" and len(front["short_description"]) <= 60
    assert files["requirements.txt"] == f"timm-attention-zoo[demo,explain]=={zoo.__version__}\n"
    assert f'"hf-hub:{REPO}@v1"' in files["app.py"]

    assert "nothing to do" in publish("--tag", "v1")[1]
    hub.commit(SPACE, README_md=b"mine", LICENSE=b"words")
    code, says = publish("--tag", "v2")
    now = {path: file.data.decode() for path, file in hub.repos[SPACE].head.files.items()}
    assert code == 0 and "README.md of the Space was changed there since and stays as it is" in says
    assert (now["README.md"], now["LICENSE"]) == ("mine", "words") and f'"hf-hub:{REPO}@v2"' in now["app.py"]


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gradio leaves those open of a page that is not served."""
    made, make = [], asyncio.new_event_loop
    monkeypatch.setattr(asyncio, "new_event_loop", lambda: made.append(make()) or made[-1])
    yield
    for loop in made:
        loop.close()


def test_the_page_of_a_space(hub: Hub, publish: Publish, tmp_path: Path, loops: None) -> None:
    """The app as it was read back from the Hub: imported, and its page made of the weights that lie there."""
    assert publish()[0] == 0
    app = hf_hub_download(REPO, "app.py", repo_type="space")
    model = runpy.run_path(app, run_name="app")["MODEL"]
    assert model == f"hf-hub:{REPO}@{hub.repos[REPO].refs['refs/heads/main']}"
    if find_spec("gradio"):
        import gradio  # pyright: ignore[reportMissingImports]

        from zoo.demo.page import build

        (tmp_path / "page").mkdir()
        page, _ = build([model], tmp_path / "page", "0.0.0.0")
        assert isinstance(page, gradio.Blocks) and "stays on this machine" not in json.dumps(page.get_config_file())


@pytest.mark.every
@pytest.mark.skipif(not find_spec("gradio"), reason="Gradio is not installed")
def test_a_space_runs(hub: Hub, publish: Publish, tmp_path: Path) -> None:
    """`python app.py`, as a Space does, with nothing but the Hub to ask."""
    assert publish()[0] == 0
    app = hf_hub_download(REPO, "app.py", repo_type="space")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "GRADIO_SERVER_PORT": str(port)}
    env = {**os.environ, **home, "PYTHONPATH": str(Path(zoo.__file__).parents[1])}
    with subprocess.Popen([sys.executable, app], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and "nothing that it is given is kept" in process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/config") as answer:
            assert REPO in answer.read().decode()
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM)


def test_what_is_refused(hub: Hub, publish: Publish) -> None:
    """Before anything is sent: a Space of somebody's own, a public one for private weights."""
    hub.create(SPACE)
    hub.commit(SPACE, app_py=b"theirs")
    for options, says in (((), "is taken: it holds app.py"), (("--private",), "is public already")):
        code, said = publish(*options)
        assert code == 2 and f"the Space {REPO} {says}" in said and REPO not in hub.repos
    assert hub.repos[SPACE].head.message == "other"


def test_a_space_that_was_interrupted(hub: Hub, publish: Publish) -> None:
    """What is missing is done by the same command; the Hub's own card is no owner's."""
    hub.fault("POST", "/spaces/.*/commit/", 500)
    code, says = publish()
    assert code == 2 and f"cannot publish the Space {REPO}" in says and len(hub.repos[SPACE].head.files) == 2
    code, says = publish()
    assert code == 0 and "published" in says and len(hub.repos[REPO].commits) == 2
    assert {*FILES} < {*hub.repos[SPACE].head.files}


def test_a_dry_run(publish: Publish, hub: Hub, tmp_path: Path) -> None:
    code, says = publish("--dry-run", "--tag", "v1")
    assert code == 0 and f"would then show it: {tmp_path / 'run.space'}" in says and not hub.log
    assert {path.name for path in (tmp_path / "run.space").iterdir()} == {*FILES}
    for path in (tmp_path / "run.space").iterdir():
        path.unlink()
    code, says = publish("--dry-run")
    assert code == 2 and "run.space is there already and no staged release" in says
