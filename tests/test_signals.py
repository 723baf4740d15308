"""A signal to all processes of a run: the one that trains saves and exits with 75, its loaders wait for it."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from shapes import TINY, draw_shapes
from test_resume import same, when_there

from zoo.cli import main
from zoo.processes import World
from zoo.training.agreement import GO_ON, STOP, Agreement
from zoo.training.recipe import Recipe
from zoo.training.recipe_file import dump_recipe
from zoo.training.start import train

ZOO = (sys.executable, "-m", "zoo", "train")


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell has it ignored in what it runs in the background, and so in all that this starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe with two loader processes, ten updates an epoch, and its run without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    data = draw_shapes(folder / "data", count=40)
    recipe = replace(TINY, data=str(data), epochs=2, batch_size=8, workers=2, checkpoint_minutes=0.0)
    (folder / "recipe.toml").write_text(dump_recipe(recipe))
    train(replace(recipe, workers=0), folder / "run")
    return recipe, folder / "run"


def begin(*command: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """In a group of processes of its own, as a shell starts one."""
    words = [str(word) for word in command]
    return subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=cwd
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code and what it said; nothing of its group is left."""
    try:
        _, said = process.communicate(timeout=120)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


@pytest.mark.parametrize(
    ("before", "number"),
    [
        pytest.param((), signal.SIGTERM, id="to the group"),
        pytest.param((), signal.SIGINT, id="Ctrl-C", marks=pytest.mark.every),
        pytest.param(("timeout", "500"), signal.SIGTERM, id="by timeout", marks=pytest.mark.every),
    ],
)
def test_a_signal_to_all_processes_saves(
    before: tuple[str, ...], number: int, whole: tuple[Recipe, Path], tmp_path: Path
) -> None:
    """`timeout` sends what it gets, or what its time gives, to its child and then to the whole group, itself too."""
    _, uninterrupted = whole
    run = tmp_path / "run"
    process = begin(*before, *ZOO, uninterrupted.parent / "recipe.toml", "--out", run)
    send = (lambda: os.kill(process.pid, number)) if before else (lambda: os.killpg(process.pid, number))
    when_there(run, 4, send).join()
    code, said = ended(process)
    assert code == 75 and "saved after update" in said and f"zoo train --resume {run}" in said, said
    assert "Traceback" not in said and not (run / "model").exists()
    assert main(["train", "--resume", str(run)]) == 0
    assert same(run, uninterrupted)


@pytest.mark.every
def test_a_second_ctrl_c_ends_at_once(whole: tuple[Recipe, Path], tmp_path: Path) -> None:
    """Where the first is not heard, as here in an update that takes minutes."""
    code = (
        "import pathlib, sys, time, zoo.cli, zoo.training.loop as loop\n"
        "def slow(*_):\n    pathlib.Path(sys.argv[3], 'slow').touch()\n    time.sleep(300)\n"
        "loop._step = slow\n"
        "sys.exit(zoo.cli.main(['train', sys.argv[1], '--out', sys.argv[2]]))"
    )
    process = begin(sys.executable, "-c", code, whole[1].parent / "recipe.toml", tmp_path / "run", tmp_path)
    until = time.monotonic() + 100
    while not (tmp_path / "slow").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)  # at once, as `timeout -s INT` and torchrun do: one, not two
    time.sleep(1.5)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    code, said = ended(process)
    assert code == 130 and "a signal came; saving after this update" in said


def test_what_is_ignored_stays_ignored() -> None:
    """As Ctrl-C is for what a shell runs in the background."""
    agreement = Agreement(World(torch.device("cpu")))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with agreement.listening():
        signal.raise_signal(signal.SIGINT)
        assert agreement.after_update(False) == GO_ON
        signal.raise_signal(signal.SIGTERM)
        assert agreement.after_update(False) == STOP
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


LEFT_AT_WORK = """
import sys, time, torch
from zoo.data.worker_errors import Loader
class Slow:
    def __len__(self): return 100
    def __getitem__(self, index):
        time.sleep(60 if index > 1 else 0)
        return torch.zeros(3, 4, 4, dtype=torch.uint8), index
batches = iter(Loader(Slow(), batch_size=2, num_workers=2, multiprocessing_context="fork"))
next(batches)
held = [batches]
held.append(held)
sys.exit(3)
"""


@pytest.mark.every
def test_a_loader_at_work_does_not_keep_its_parent_from_leaving() -> None:
    """Python stops it by SIGTERM, which it heeds from its parent."""
    begun = time.monotonic()
    assert ended(begin(sys.executable, "-c", LEFT_AT_WORK))[0] == 3
    assert time.monotonic() - begun < 45


def test_signals_go_on_as_before_once_loaders_are_started() -> None:
    from test_worker_errors import Squares

    from zoo.data.worker_errors import Loader

    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert len(list(Loader(Squares({}), batch_size=2, num_workers=1, multiprocessing_context="fork"))) == 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    assert threading.current_thread() is threading.main_thread()


@pytest.mark.every
def test_no_signal_is_asked_for_that_the_system_lacks() -> None:
    """Windows has no SIGUSR1: the module is read there as here, and listens to what there is."""
    code = (
        "import signal\ndel signal.SIGUSR1\ndel signal.sigwaitinfo\n"
        "import torch\nfrom zoo.processes import STOPPING, World\nfrom zoo.training.agreement import Agreement\n"
        "from zoo.data.worker_signals import leave_signals_to_parent, signals_held\n"
        "leave_signals_to_parent(0)\n"
        "agreement = Agreement(World(torch.device('cpu')))\n"
        "with agreement.listening(), signals_held():\n    signal.raise_signal(signal.SIGTERM)\n"
        "print(len(STOPPING), agreement.after_update(False))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2 2\n", done.stderr
