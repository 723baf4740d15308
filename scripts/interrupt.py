"""Stop runs at random moments, go on with them, and compare the weights with those of runs that nobody stopped.

    python scripts/interrupt.py

Small runs on handwritten digits of 8x8 pixels, one thread a process, each with a state of its own to come back to:
loader processes, images on the device, bf16, a moving average, early stopping, micro-batches, two processes under
torchrun. A way and a moment are drawn for each interruption. Then `zoo train --resume RUN` (or `zoo train RECIPE --out
RUN` if it says that nothing had begun, or the same line again under torchrun) has to end with 0, and with the bits of
the uninterrupted run. Writes a line an interruption to interrupt.csv beside it, and prints a table. What is there
already is not done again.
"""

import argparse
import csv
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from measured import read_rows, write_rows
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from zoo.training.checkpoint import checkpoints, step_of
from zoo.training.recipe_file import dump_recipe, make_recipe

RESULT = Path(__file__).with_suffix(".csv")
SMALL = {
    "model": "cbam_resnet20_cifar",
    "image_size": 8,
    "batch_size": 32,
    "epochs": 3,
    "lr": 4e-3,
    "hflip": 0.0,
    "device": "cpu",
}
ON_DEVICE = {"loader": "device", "crop_scale": 1.0, "crop_padding": 1}
KINDS: dict[str, Mapping[str, object]] = {
    "host": {"loader": "host", "workers": 2, "crop_scale": 0.6, "mixup": 0.2},
    "device": {**ON_DEVICE, "erase": 0.3, "drop_path": 0.1},
    "bf16": {**ON_DEVICE, "amp": "bf16", "clip_grad": 1.0},
    "ema": {**ON_DEVICE, "ema_decay": 0.9},
    "patience": {**ON_DEVICE, "patience": 2, "epochs": 4},
    "accumulate": {"loader": "host", "workers": 1, "crop_scale": 0.6, "accumulate": 2, "cutmix": 1.0},
    "torchrun": {**ON_DEVICE, "sync_bn": True},
}
"""What the recipes of the runs have beside SMALL, by name."""
CHECKPOINT_MINUTES = (0.0, 0.01, 5.0)
"""One is drawn for each run: a checkpoint an update, one in a while, and the first epoch's alone."""
TRIES = 4
"""After which a run that does not come to its end counts as a dead end."""
DONE = "model and report"
"""What is there when nothing is left to interrupt."""
LONGEST = 300
"""Seconds in which a process has to end, or it counts as one that hangs."""


def _signal(number: int) -> Callable[[int], None]:
    return lambda pid: os.kill(pid, number)


def _signal_group(number: int) -> Callable[[int], None]:
    return lambda pid: os.killpg(pid, number)


def _kill_a_worker(pid: int) -> None:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(found[-1]) if found else pid, signal.SIGKILL)


WAYS: dict[str, Callable[[int], None]] = {
    "SIGKILL": _signal(signal.SIGKILL),
    "SIGKILL to the group": _signal_group(signal.SIGKILL),
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGTERM to the group": _signal_group(signal.SIGTERM),
    "Ctrl-C": _signal_group(signal.SIGINT),
    "SIGKILL to a worker": _kill_a_worker,
}
"""What stops a run, given the process that was started. torchrun's workers are in groups of their own."""
ALONE = list(WAYS)[:5]
OF_TORCHRUN = ["SIGKILL", "SIGTERM", "Ctrl-C", "SIGKILL to a worker"]


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int | None
    """None if it hung."""
    said: str
    seconds: float
    """Since its run directory was there."""
    stopped: bool
    """Whether the signal came while something was left to do."""


def watch(
    command: Sequence[str], out: Path, log: Path, stop: Callable[[int], None] | None = None, after: float = 0.0
) -> Ended:
    """Run a command in a group of its own, and `stop` it so many seconds `after` its run directory was there."""
    stopped = False
    with log.open("w+") as file:
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=one_thread
        )
        while not (out / "recipe.toml").exists() and process.poll() is None:
            time.sleep(0.002)
        there = time.monotonic()
        if stop:
            time.sleep(after)
            if stopped := process.poll() is None and what_is_left(out) != DONE:
                stop(process.pid)
        try:
            code = process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            code = None
            process.kill()
            process.wait()
        file.seek(0)
        return Ended(code, file.read(), time.monotonic() - there, stopped)


@dataclass(frozen=True)
class Subject:
    """A kind of run, in a folder with its recipe and with `whole`, the run that nobody stopped."""

    kind: str
    folder: Path
    seconds: float
    """That it takes, once its directory is there."""

    def begin(self, out: Path, minutes: float) -> list[str]:
        """The command that starts it."""
        launcher = ["zoo"]
        if self.kind == "torchrun":
            launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3", "-m", "zoo"]
        recipe = ["train", str(self.folder / "recipe.toml"), "--out", str(out)]
        return [sys.executable, "-m", *launcher, *recipe, "--set", f"checkpoint_minutes={minutes}"]

    def go_on(self, out: Path, minutes: float, said: str) -> list[str]:
        """The command that goes on with it, given what the one before said."""
        if self.kind == "torchrun" or "holds no run to resume" in said:
            return self.begin(out, minutes)
        return [sys.executable, "-m", "zoo", "train", "--resume", str(out)]


def write_digits(folder: Path) -> Path:
    """640 of scikit-learn's digits to train on and 320 to validate on, as they are, in class folders."""
    greys, labels = load_digits(return_X_y=True)
    for k, (grey, label) in enumerate(zip(greys[:960], labels, strict=False)):
        place = folder / ("train" if k < 640 else "val") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((grey.reshape(8, 8) * 15).astype("uint8")).convert("RGB").save(place / f"{k}.png")
    return folder


def make_subject(kind: str, data: Path, folder: Path) -> Subject:
    """Train it once."""
    folder.mkdir(parents=True)
    recipe = make_recipe({**SMALL, **KINDS[kind], "data": str(data)})
    (folder / "recipe.toml").write_text(dump_recipe(recipe), encoding="utf-8")
    subject = Subject(kind, folder, 0.0)
    ended = watch(subject.begin(folder / "whole", 5.0), folder / "whole", folder / "whole.txt")
    if ended.code != 0:
        raise RuntimeError(f"{kind} does not train: {ended.said}")
    return replace(subject, seconds=ended.seconds)


def interrupt(subject: Subject, way: str, share: float, minutes: float, out: Path) -> dict[str, object] | None:
    """Stop a run after this share of its time, and go on until it is done. A row, or None if that was too late."""
    after, log = share * subject.seconds, out.with_suffix(".txt")
    ended = watch(subject.begin(out, minutes), out, log, WAYS[way], after)
    if not ended.stopped:
        return None
    row: dict[str, object] = {
        "kind": subject.kind,
        "way": way,
        "checkpoint_minutes": minutes,
        "seconds": f"{after:.2f}",
        "code": "hangs" if ended.code is None else ended.code,
        "left": what_is_left(out),
    }
    goes, done = 0, ended.code == 0  # torchrun starts a killed worker again by itself
    while not done and goes < TRIES:
        ended = watch(subject.go_on(out, minutes, ended.said), out, log)
        done = ended.code == 0
        goes += 1
    return row | {"goes": goes, "dead_end": not done, "equal": done and equal(out, subject.folder / "whole")}


def what_is_left(out: Path) -> str:
    """How far the run had come, by its files."""
    if (out / "model").exists():
        return DONE if (out / "report.html").exists() else "model"
    if found := checkpoints(out / "checkpoint"):
        return f"update {step_of(found[0])}"
    return "recipe" if (out / "recipe.toml").exists() else "nothing"


def equal(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same weights, bit for bit, after the same epochs, and both with a report."""
    tensors, wanted = (load_file(run / "model" / "model.safetensors") for run in (one, other))
    rows = [[row["val_top1"] for row in read_csv(run / "metrics.csv")] for run in (one, other)]
    same = all(torch.equal(tensor, wanted[name]) for name, tensor in tensors.items())
    return same and tensors.keys() == wanted.keys() and rows[0] == rows[1] and (one / "report.html").exists()


def read_csv(path: Path) -> list[dict[str, str]]:
    """Its rows."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """How many of each kind and way, and how many of them ended as if nobody had stopped them."""
    lines = ["| run | stopped by | times | before a checkpoint | dead ends | equal bits |", "|---|---|---|---|---|---|"]
    for kind in KINDS:
        for way in WAYS:
            these = [row for row in rows if (row["kind"], row["way"]) == (kind, way)]
            early, dead, same = (
                sum(each(row) for row in these)
                for each in (
                    lambda row: row["left"] in ("nothing", "recipe"),
                    lambda row: str(row["dead_end"]) == "True",
                    lambda row: str(row["equal"]) == "True",
                )
            )
            if these:
                lines.append(f"| {kind} | {way} | {len(these)} | {early} | {dead} | {same} |")
    counts = [sum(int(line.split("|")[k]) for line in lines[2:]) for k in (3, 4, 5, 6)]
    return "\n".join([*lines, f"| all | | {' | '.join(map(str, counts))} |"])


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--number", type=int, default=60, help="interruptions")
    parser.add_argument("--seed", type=int, default=0, help="of the ways and the moments")
    parser.add_argument("--out", type=Path, default=RESULT, help="the CSV file")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell has it ignored
    conditions = (
        f"python scripts/interrupt.py --number {options.number} --seed {options.seed}: torch {torch.__version__}, "
        f"timm {timm.__version__}, one thread a process of {platform.machine()}, digits, CBAM-ResNet-20 at 8 pixels, "
        "CPU; `seconds` since the run directory was there, `goes` after the interruption until the run was done"
    )
    rows: list[dict[str, object]] = []
    if options.out.exists():
        before, there = read_rows(options.out)
        rows = [dict(row) for row in there] if before == conditions else []
    subjects: dict[str, Subject] = {}
    with tempfile.TemporaryDirectory() as work:
        data = write_digits(Path(work) / "digits")
        for number in range(len(rows), options.number):
            draw = random.Random(f"{options.seed} {number}")
            kind = list(KINDS)[number % len(KINDS)]
            way = draw.choice(OF_TORCHRUN if kind == "torchrun" else ALONE)
            minutes = draw.choice(CHECKPOINT_MINUTES)
            if kind not in subjects:
                subjects[kind] = make_subject(kind, data, Path(work) / kind)
            row = None
            while row is None:  # a run that was quicker than its moment was not interrupted
                out = Path(work) / f"{number}-{draw.random()}"
                row = interrupt(subjects[kind], way, draw.random(), minutes, out)
                shutil.rmtree(out)
            rows.append(row)
            write_rows(options.out, conditions, rows)
            print(f"{number + 1}/{options.number}: {row}", file=sys.stderr, flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
