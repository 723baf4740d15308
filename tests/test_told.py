"""What a run tells: what was chosen for it, where it is and how long it takes, and what it kept."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from shapes import TINY, draw_shapes

from zoo.cli import main
from zoo.hardware import hardware
from zoo.models.macs import parameter_count
from zoo.training.progress import in_words
from zoo.training.recipe_file import dump_recipe
from zoo.training.start import train


def begun(recipe: object, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a run on standard error."""
    train(recipe, tmp_path / "run")  # pyright: ignore
    return capfd.readouterr().err.splitlines()


def test_a_run_begins_with_what_was_chosen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = draw_shapes(tmp_path / "data", ["train", "val", "test"], count=10)
    recipe = replace(
        TINY, data=str(data), epochs=2, batch_size=10, accumulate=2, head_epochs=1, patience=3, freeze=("conv1", "bn1")
    )  # fmt: skip
    model, device, images, length, place, *rest = begun(recipe, tmp_path, capfd)
    network = timm.create_model("cbam_resnet20_cifar", num_classes=2)
    count = parameter_count(network)
    frozen = parameter_count(network.conv1) + parameter_count(network.bn1)
    new = sum(p.numel() for name, p in network.named_parameters() if name.startswith("fc.") or ".se." in name)
    assert model == (
        f"cbam_resnet20_cifar: {count / 1e3:.3g} k parameters, from random weights; {(count - frozen) / 1e3:.3g} k "
        f"train, frozen: conv1, bn1, {new / 1e3:.3g} k of head and gates alone for 1 epoch"
    )
    assert re.fullmatch(
        rf"device cpu: {re.escape(hardware(torch.device('cpu')))}, 1 thread, fp32, "
        r"(eager attention|attention by).*, images loaded by the process.*",
        device,
    )
    assert images == (
        f"{data}: 20 images to train on, 20 to validate on, 20 to test on, 2 classes, 16x16 pixels; "
        "the result is of test/ of the folder"
    )
    assert length == (
        "2 epochs of 2 updates of 10 in 2 micro-batches, or until 3 epochs bring no better one; "
        "adamw, cosine, lr 0.005 after 1 epochs of warm-up"
    )
    assert place == f"run: {tmp_path / 'run'}"
    assert [line.split(":")[0] for line in rest] == ["epoch 1/2", "epoch 2/2"]
    assert re.search(r"img/s, at most \d+ s left$", rest[0]) and rest[1].endswith("img/s")


def test_what_a_network_freezes_itself_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = draw_shapes(tmp_path / "data", count=4)
    recipe = replace(TINY, data=str(data), model="hacnn", model_kwargs={"local_branch": False}, image_size=(64, 32))
    said = begun(replace(recipe, epochs=1, warmup_epochs=0.0, batch_size=4, crop_scale=1.0), tmp_path, capfd)
    assert said[0].endswith(" M train, frozen: what the network freezes itself") and "64x32 pixels" in said[2]


def test_elsewhere_no_silence_is_long(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by a single update that is long, nor while held-out images are measured; here 0.3 seconds are long."""
    monkeypatch.setattr("zoo.training.progress.SILENCE", 0.3)
    from zoo.training import loop

    step, score = loop._step, loop.score_part

    def slow_step(*arguments: object) -> None:
        time.sleep(0.8)
        step(*arguments)  # pyright: ignore

    def slow_score(*arguments: object) -> object:
        time.sleep(0.8)
        return score(*arguments)  # pyright: ignore

    monkeypatch.setattr(loop, "_step", slow_step)
    monkeypatch.setattr(loop, "score_part", slow_score)
    data = draw_shapes(tmp_path / "data", count=8)
    said = begun(replace(TINY, data=str(data), epochs=1, warmup_epochs=0.0, batch_size=8), tmp_path, capfd)[5:]
    assert said[:2] == ["epoch 1/1, update 1 of 2"] * 2, "nothing is known of the time that is left"
    assert any(re.fullmatch(r"epoch 1/1, update 2 of 2, \d+ s left", line) for line in said)
    assert "epoch 1/1, measuring" in said and any(line.startswith("epoch 1/1: loss ") for line in said)
    time.sleep(0.5)
    assert capfd.readouterr().err == "", "afterwards it is silent"


@pytest.mark.every
def test_a_terminal_has_a_bar_with_the_time_left(tmp_path: Path) -> None:
    """A real one, as far as the command can tell."""
    recipe = replace(TINY, data=str(draw_shapes(tmp_path / "data", count=20)), epochs=2, batch_size=4)
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("4H", 40, 120, 0, 0))
    command = [sys.executable, "-m", "zoo", "train", str(tmp_path / "recipe.toml"), "--out", str(tmp_path / "run")]
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                shown.append(os.read(mine, 10_000))
            except OSError:  # the other end is closed
                return

    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as process:
        os.close(its)
        reader = threading.Thread(target=read)
        reader.start()
        assert process.wait(100) == 0
        reader.join()
    os.close(mine)
    text = b"".join(shown).decode()
    assert re.search(r"cbam_resnet20_cifar: +\d+%.*\[\d\d:\d\d<\d\d:\d\d", text), text
    assert "top-1" in text and "epoch 1/2: " not in text


def test_a_run_ends_with_what_it_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    recipe = replace(TINY, data=str(draw_shapes(tmp_path / "data", count=10)), epochs=1, warmup_epochs=0.0)
    (tmp_path / "recipe.toml").write_text(dump_recipe(recipe))
    for name, keep in (("run", "false"), ("kept", "true")):
        run = tmp_path / name
        words = ["train", str(tmp_path / "recipe.toml"), "--out", str(run), "--set", f"keep_checkpoints={keep}"]
        assert main(words) == 0
        said = capfd.readouterr().out.splitlines()
        (files,) = (line for line in said if line.startswith("files: "))
        listed, _, note = files.removeprefix("files: ").partition("; ")
        assert {each.split()[0] for each in listed.split(", ")} == {path.name for path in run.iterdir()}
        size = sum(file.stat().st_size for file in (run / "model").iterdir())
        assert f"model {size / 1e6:.1f} MB" in listed
        assert note == ("" if name == "kept" else "keep_checkpoints is off") and "kept: last epoch" in said


def test_time_in_words() -> None:
    assert [in_words(seconds) for seconds in (0.4, 89, 90, 3540, 3600, 7384)] == [
        "0 s", "89 s", "2 min", "59 min", "1 h 0 min", "2 h 3 min"
    ]  # fmt: skip
