"""Fixtures of the whole suite. No test needs a network beyond loopback, a GPU or data that is not in the project."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # before torch's compiler imports Triton, whose own functions heed it

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import Account, Hub, serve
from huggingface_hub import constants

import zoo
from zoo.training.recipe_file import load_recipe
from zoo.training.start import train

REPLACED: list[object] = []
"""Operators that PyTorch has replaced, kept alive.

TorchScript knows operators by `id` and keeps that of a replaced one (`torch/jit/_builtins.py`), so whatever function is
put at the same address later, it takes for the operator: "builtin cannot be used as a value". PyTorch replaces one of
its quantisation operators when its library of them is imported, which tests of the converter do.
"""

_refresh_packet = torch._ops._refresh_packet


def _keep_replaced(packet: torch._ops.OpOverloadPacket) -> None:
    REPLACED.append(packet._op)
    _refresh_packet(packet)


torch._ops._refresh_packet = _keep_replaced

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core, so a thread a process, and for those it starts
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Real data and weights, where a checkout has them beside it; tests that use them skip elsewhere."""

QUICKSTART = Path(zoo.__file__).parents[1] / "configs" / "quickstart.toml"
WRITER, READER, STRANGER = (f"hf_{letter * 34}" for letter in "wrs")
"""Tokens: of `me` with write access, of `me` to read only, of `you`."""


LONG = (
    "test_distributed",
    "test_warm_start",
    "test_gpu_jobs",
    "test_catalog",
    "test_counts",
    "test_docs",
    "test_train",
    "test_publish",
)
"""Files of more than 40 seconds, the longest first."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="not one of each kind but every one; twice as long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files are dealt to processes in order: the long ones come first, so that none is left for one process alone."""
    if not config.getoption("--all"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("every")])
        items[:] = [item for item in items if not item.get_closest_marker("every")]
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub on loopback that this process' client talks to, with an empty cache; it does not wait between tries."""
    with serve() as hub:
        hub.tokens = {WRITER: Account("me", orgs=("org",)), READER: Account("me", "read"), STRANGER: Account("you")}
        values = {
            "ENDPOINT": hub.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_PROGRESS_BARS": True,
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", WRITER)
        monkeypatch.setattr("time.sleep", hub.waits.append)
        yield hub


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart, one epoch of it."""
    run = tmp_path_factory.mktemp("runs") / "quickstart"
    train(load_recipe(QUICKSTART, ["epochs=1", "warmup_epochs=0.5", "device=cpu"]), run)
    config = json.loads((run / "model" / "config.json").read_text())
    config["zoo"].setdefault("result", {"top1": 87.5, "top5": 99.0, "n": 359, "split": "held out", "epochs": 1})
    (run / "model" / "config.json").write_text(json.dumps(config))
    return run
