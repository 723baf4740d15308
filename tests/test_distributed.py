"""Several real processes under torchrun, on a CPU: the weights of one process, and the same after a worker died."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from shapes import TINY, draw_shapes, rows
from test_resume import same, when_there

import zoo
from zoo.processes import norm_over_processes
from zoo.training.recipe import Recipe
from zoo.training.recipe_file import dump_recipe
from zoo.training.start import train

ROOT = Path(zoo.__file__).parents[1]
SHARED_OUT = replace(
    TINY,
    epochs=2,
    batch_size=8,
    accumulate=2,
    optimizer="sgd",
    lr=0.05,
    crop_scale=1.0,
    crop_padding=2,
    erase=0.5,
    hflip=0.5,
    label_smoothing=0.1,
    ema_decay=0.9,
    sync_bn=True,
    checkpoint_minutes=0.0,
)
"""All that can be the same for one process and for two: no noise inside the network, no mixing of images."""


@contextmanager
def launch(*command: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A torchrun agent, whose whole family is gone afterwards."""
    path = os.environ["PATH"]
    process = subprocess.Popen(
        [str(word) for word in command],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{path}"} | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def accuracies(output: str) -> int:
    """Lines with an accuracy, of epochs and of the result."""
    return len(re.findall("^(?:epoch .*)?top-1", output, re.MULTILINE))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """The recipe on drawn data (81 images, so that shards are uneven), and its run on two processes."""
    folder = tmp_path_factory.mktemp("two")
    data = draw_shapes(folder / "data", count=41)
    (data / "val" / "disc" / "40.png").unlink()
    recipe = replace(SHARED_OUT, data=str(data))
    (folder / "recipe.toml").write_text(dump_recipe(recipe))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    with launch(*torchrun, "-m", "zoo", "train", folder / "recipe.toml", "--out", folder / "run") as process:
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert accuracies(output) == 1 + 2, "one process talks"
    return recipe, folder / "run"


def test_two_processes_train_as_one_with_the_same_batch(two: tuple[Recipe, Path], tmp_path: Path) -> None:
    """Equal to rounding: sums over processes have another order. 20 updates of SGD with momentum and a large rate."""
    recipe, run = two
    torch.set_num_threads(1)  # as torchrun has it
    one = train(recipe, tmp_path / "one")
    weights, wanted = (load_file(r / "model" / "model.safetensors") for r in (run, one.directory))
    untrained = train(replace(recipe, lr=0.0, epochs=1, warmup_epochs=0.0), tmp_path / "untrained")
    start = load_file(untrained.directory / "model" / "model.safetensors")
    # Counts of batches aside, which nothing reads and gates do not keep.
    keys = [key for key, value in wanted.items() if value.is_floating_point()]
    one_way, apart = (
        torch.cat([(a[k] - b[k]).flatten() for k in keys]) for a, b in ((wanted, start), (weights, wanted))
    )
    assert apart.norm() <= 1e-3 * one_way.norm() and apart.abs().max() < 1e-3
    for row, other in zip(rows(run), rows(one.directory), strict=True):
        for name in ("train_loss", "val_loss"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-4)
    assert one.score.n == 81


def documented(beginning: str) -> str:
    """The line of the page that begins so."""
    page = (ROOT / "zoo" / "training" / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith(beginning))
    return line


def children(process: subprocess.Popen[str]) -> list[int]:
    shown = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in shown.stdout.split()]


def kill_a_worker_of(agent: subprocess.Popen[str]) -> None:
    os.kill(children(agent)[-1], signal.SIGKILL)


@pytest.mark.every
def test_the_line_to_try_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands on the page; a worker is killed in the second epoch, after the first checkpoint."""
    monkeypatch.chdir(tmp_path)
    with launch(*documented("torchrun --nproc-per-node=2").split()) as agent:
        watcher = when_there(tmp_path / "runs" / "two", 22, lambda: kill_a_worker_of(agent))
        output, _ = agent.communicate(timeout=220)
        watcher.join()
    assert agent.returncode == 0 and "exitcode: -9" in output, output
    assert len(rows(tmp_path / "runs" / "two")) == 2 and accuracies(output) == 2 + 1, output


@pytest.fixture
def line(two: tuple[Recipe, Path], tmp_path: Path) -> list[str]:
    """The page's line for one machine, with other values for its recipe and data, and two processes for eight."""
    file = tmp_path / "recipe.toml"
    file.write_text(dump_recipe(two[0]))
    said, run = documented("torchrun --nproc-per-node=8"), str(tmp_path / "run")
    other = {"=8": "=2", "in1k_modern": str(file), "data=imagenet": f"data={two[0].data}", "runs/modern": run}
    for words, here in other.items():
        assert said.count(words) == 1
        said = said.replace(words, here)
    return said.split()


def test_a_killed_worker_on_one_machine(two: tuple[Recipe, Path], line: list[str], tmp_path: Path) -> None:
    with launch(*line) as agent:
        watcher = when_there(tmp_path / "run", 7, lambda: kill_a_worker_of(agent))
        output, _ = agent.communicate(timeout=220)
        watcher.join()
    assert agent.returncode == 0 and "exitcode: -9" in output, output
    assert same(tmp_path / "run", two[1])


@pytest.mark.every
def test_a_killed_torchrun(two: tuple[Recipe, Path], line: list[str], tmp_path: Path) -> None:
    """Its workers, held until it is gone, save and leave; the same line goes on with the run."""
    run, orphans = tmp_path / "run", []

    def kill_it() -> None:
        orphans.extend(children(agent))
        for number in (signal.SIGSTOP, signal.SIGKILL, signal.SIGCONT):
            for pid in [agent.pid] if number == signal.SIGKILL else orphans:
                os.kill(pid, number)
            time.sleep(1)

    with launch(*line) as agent:
        when_there(run, 3, kill_it).join()
        output, _ = agent.communicate(timeout=120)  # until the last of its family has closed the pipe
    assert agent.returncode == -signal.SIGKILL and "saved after update" in output, output
    assert len(orphans) == 2 and not (run / "model").exists() and not (run / "lock").exists()
    with launch(*line) as again:
        output, _ = again.communicate(timeout=220)
    assert again.returncode == 0, output
    assert same(run, two[1])


@pytest.mark.every
def test_a_killed_worker_on_one_of_two_nodes(two: tuple[Recipe, Path], tmp_path: Path) -> None:
    """Two agents that meet on loopback; SIGKILL to a worker; all start again and end as if nothing had happened."""
    recipe, uninterrupted = two
    file, run = tmp_path / "recipe.toml", tmp_path / "run"
    file.write_text(dump_recipe(recipe))
    said = documented("HEAD=node-a:29500 NODES=2").replace("configs/in1k_modern.toml", str(file))
    head, nodes, script, *words = said.replace("runs/modern", str(run)).split()
    with ExitStack() as stack:
        place = {"HEAD": head.removeprefix("HEAD=").replace("node-a:29500", f"127.0.0.1:{free_port()}")}
        place |= {"NODES": nodes.removeprefix("NODES="), "PROCESSES": "1"}
        command = (ROOT / script, *words, "--local-addr=127.0.0.1")
        agents = [stack.enter_context(launch(*command, **place)) for _ in range(2)]
        watcher = when_there(run, 7, lambda: kill_a_worker_of(agents[1]))
        outputs = [agent.communicate(timeout=220)[0] for agent in agents]
        watcher.join()
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(outputs)
    assert "exitcode: -9" in outputs[1], outputs[1]
    assert same(run, uninterrupted)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as a world of its own."""
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    torch.distributed.init_process_group("gloo", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    "options",
    [{}, {"affine": False}, {"momentum": None}, {"track_running_stats": False}],
    ids=lambda options: "".join(options) or "plain",
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sync_batch_norm_on_a_cpu_is_batch_norm_over_all(options: dict[str, Any], dtype: torch.dtype) -> None:
    """On one process, over a whole batch: the formula of torch's own, in its types."""
    torch.manual_seed(0)
    mine, wanted = norm_over_processes(torch.nn.BatchNorm2d)(5, **options), torch.nn.BatchNorm2d(5, **options)
    near = {"atol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.02}
    for _ in range(2):
        x = torch.randn(6, 5, 27, 13, dtype=dtype, requires_grad=True)
        weight = torch.randn(6, 5, 27, 13, dtype=dtype)
        outputs = [norm(x) for norm in (mine, wanted)]
        grads = [
            torch.autograd.grad((y * weight).float().sum(), [x, *norm.parameters()])
            for y, norm in zip(outputs, (mine, wanted), strict=True)
        ]
        assert outputs[0].dtype == outputs[1].dtype == dtype and torch.allclose(*outputs, **near)
        assert all(torch.allclose(a, b, **near) for a, b in zip(*grads, strict=True))
        assert all(torch.allclose(a, b, **near) for a, b in zip(mine.buffers(), wanted.buffers(), strict=True))
    assert torch.allclose(mine.eval()(x), wanted.eval()(x), **near)


@pytest.mark.every
def test_two_processes_with_frozen_parts_and_bf16(tmp_path: Path) -> None:
    """DistributedDataParallel refuses parameters that train and get no gradient; batch norms sum bf16 maps."""
    data = draw_shapes(tmp_path / "data", count=4)
    recipe = Recipe(
        model="hacnn", data=str(data), model_kwargs={"local_branch": False}, image_size=[64, 32], epochs=2,
        batch_size=4, amp="bf16", sync_bn=True, warmup_epochs=0.0, crop_scale=1.0, workers=0, device="cpu",
    )  # fmt: skip
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    words = documented("torchrun --nproc-per-node=2").split(" train ")[0].split()
    with launch(*words, "train", tmp_path / "recipe.toml", "--out", tmp_path / "run") as process:
        output, _ = process.communicate(timeout=200)
    assert process.returncode == 0 and len(rows(tmp_path / "run")) == 2, output
