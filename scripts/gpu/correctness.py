"""Does fast training compute the same, and does a run that was stopped on the GPU end as one that was not?

    PYTHONPATH=. python scripts/gpu/correctness.py --minutes 8.5

1. Steps of the zoo's gates: fp32, channels_last and compiled; bf16; bf16, channels_last and compiled. Each against fp32
   in eager mode and NCHW without TF32: same weights, same images. The gradient of the first step (all parameters, and
   the gates' alone) by ||g - reference|| / ||reference||, and the losses of all steps by their largest relative error.
   How far rounding moves these depends on the network (ReLUs and maxima flip; batch norms amplify), so the limit is
   measured beside them: 4 times what rounding the weights alone to that precision does to the reference, and at least
   0.01 for gradients and 0.02 for losses. Where that is above 0.5, the network cannot tell right from wrong, and the
   table says so.
2. `zoo train` stopped by SIGTERM in the middle and resumed, against the same run uninterrupted, as processes:
   - `deterministic` (fp32, eager, torch.use_deterministic_algorithms): the weights have to be equal bit for bit. All
     that is random is a function of seed and step, checkpoints hold the rest, and each kernel sums in a fixed order.
   - `trained` (bf16, channels_last, compiled, as in the recipes): bit equality cannot be asked for. Some of cuDNN's
     backward kernels add with atomics, in an order that differs from run to run, and compiled kernels are picked by
     timing, anew in each process; training multiplies such differences. What can be asked is that the resumed run is
     no further from the uninterrupted one than a second uninterrupted one is, up to a factor of 3.

3. The Triton kernels of CBAM, SE and BAM (zoo/attention/kernels): what they return and all gradients against fp64, by
   ||a - b|| / ||b||, in fp32, bf16 and fp16, with and without shortcut and ReLU, with maxima that are shared.

Rows that are there already are not measured again.
"""

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fleet import checked
from safetensors.torch import load_file
from step import Steps, drawn_data
from tables import RESULTS, UNFINISHED, Ledger, command_line, machine, print_table, write_table
from torch import Tensor

import zoo
from zoo.files import write_whole
from zoo.inference.device import pick_device
from zoo.training.parameter_groups import new_parts
from zoo.training.recipe import Recipe
from zoo.training.recipe_file import dump_recipe

KERNELS = ("cbam", "se", "amplify")
NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""How far the kernels may be from fp64: by what their maps are rounded to."""
Gradient = dict[str, Tensor]
SIZES = {
    "resnet20_cifar": (32, 32),
    "se_resnet20_cifar": (32, 32),
    "cbam_resnet20_cifar": (32, 32),
    "bam_resnet20_cifar": (32, 32),
    "cbam_mobilenetv2_100_cifar": (32, 32),
    "eca_resnet18": (64, 64),
    "coord_resnet18": (64, 64),
    "scse_resnet18": (64, 64),
    "simam_resnet18": (64, 64),
    "triplet_resnet18": (64, 64),
    "ha_mobilenetv2_100": (64, 64),
    "hacnn": (160, 64),
    "se_resnet18_volume": (16, 16, 16),
    "cbam_resnet18_volume": (16, 16, 16),
    "bam_resnet18_volume": (16, 16, 16),
}
"""One network a gate, and the size of its drawn images or volumes."""


@dataclass(frozen=True)
class Way:
    """How a step is computed, and what rounding its weights to the same precision is."""

    changes: dict[str, Any]
    compiled: bool
    rounding: str


def last_bit(weights: Tensor) -> Tensor:
    """fp32 weights with their last bit changed up or down at random."""
    sign = torch.randint(0, 2, weights.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return weights * (1 + 2.0**-23 * sign.to(weights))


def to_bf16(weights: Tensor) -> Tensor:
    """fp32 weights, rounded."""
    return weights.bfloat16().float()


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {"fp32": last_bit, "bf16": to_bf16}
WAYS = {
    "fp32 compiled": Way({"channels_last": True}, True, "fp32"),
    "bf16": Way({"amp": "bf16"}, False, "bf16"),
    "bf16 compiled": Way({"amp": "bf16", "channels_last": True}, True, "bf16"),
}
FACTOR = 4.0
"""How much further off than by rounding the weights alone: activations and gradients are rounded too."""
ALLOWED = (0.01, 0.02, 0.02)
"""Relative errors of the gradient, the gates' gradient and the losses that are always allowed: where only the order of
sums differed, in fp32 on a CPU with 8 images, a ReLU or a maximum that flips moved CBAM's gradient by 0.0055 and that
of its neutral gates by 0.012, and a loss may by chance hardly move."""
TELLING = 0.5
"""A limit above this lets anything pass."""
STEPS = 8
"""Steps of a loss curve."""
APART = 3.0
"""How much further than a second uninterrupted run a resumed one may be."""
COLUMNS = ("check", "model", "compared", "error", "limit", "verdict")
CHILD = """import sys, torch
torch.use_deterministic_algorithms(True, warn_only=True)
from zoo.cli import main
sys.exit(main(sys.argv[1:]))"""


def row(check: str, model: str, compared: str, error: float, limit: float, **more: Any) -> dict[str, Any]:
    """A row of the table; an error that is not a number never passes."""
    verdict = ("ok" if limit <= TELLING else "cannot tell") if error <= limit else "WRONG"
    return {
        "check": check,
        "model": model,
        "compared": compared,
        "error": error,
        "limit": limit,
        "verdict": verdict,
    } | more


def distance(one: Gradient, other: Gradient, only: Iterable[str] | None = None) -> float:
    """||one - other|| / ||other|| over the tensors of these names."""
    names = list(other if only is None else only)
    if one.keys() != other.keys() or not names:
        return float("nan")
    first, second = (torch.cat([part[name].double().flatten() for name in names]) for part in (one, other))
    return ((first - second).norm() / second.norm()).item()


def gates(model: str, size: tuple[int, ...], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one network: every way against the reference."""
    device = pick_device(options.device)
    data = drawn_data(4 * options.batch, 10, size)
    reference = Recipe(
        model=model, data="drawn", batch_size=options.batch, image_size=size, optimizer="sgd", lr=1e-3,
        weight_decay=5e-4, crop_scale=1.0, crop_padding=min(size) // 8, workers=0, device=options.device,
    )  # fmt: skip

    def errors(gradient: Gradient, losses: list[float]) -> tuple[float, float, float]:
        off = max(abs(a - b) / abs(b) for a, b in zip(losses, wanted_losses, strict=True))
        return distance(gradient, wanted), distance(gradient, wanted, of_gates), off

    first = Steps(reference, data, device)
    heads = tuple(f"{name}." for name in _classifier(first.model))
    wanted, wanted_losses = curve(first)
    of_gates = [n for n in wanted if n.startswith(new_parts(first.model)) and not n.startswith(heads)]
    rows, limits = [], {}
    for name, rounding in ROUNDINGS.items():
        steps = Steps(reference, data, device)
        with torch.no_grad():
            for weights in steps.model.parameters():
                weights.copy_(rounding(weights.cpu()))
        limits[name] = [max(FACTOR * e, least) for e, least in zip(errors(*curve(steps)), ALLOWED, strict=True)]
    for name, way in WAYS.items():
        compiler = partial(torch.compile, backend=options.backend) if way.compiled else lambda network: network
        gradient, losses = curve(Steps(replace(reference, **way.changes), data, device, compiler))
        checks = zip(
            ("gradient", "gates' gradient", "losses"), errors(gradient, losses), limits[way.rounding], strict=True
        )
        for check, error, limit in checks:
            if of_gates or check != "gates' gradient":
                rows.append(row(check, model, name, error, limit, losses=losses, reference_losses=wanted_losses))
        torch._dynamo.reset()
    return rows


def curve(steps: Steps) -> tuple[Gradient, list[float]]:
    """The gradient of the first step, and the losses of all."""
    steps.model.train()
    gradient, loss = steps.gradients()
    return gradient, [loss.item(), *(steps().item() for _ in range(STEPS - 1))]


def kernels(name: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one operation: twice in each precision, bit-equal, and near fp64."""
    from kernel_cases import make_case

    rows = []
    for dtype, near in NEAR.items():
        for residual, ties in ((True, False), (False, True)):
            case = make_case(name, tuple(options.kernel_shape), dtype, pick_device(options.device), residual, ties)
            found, again, exact = case.outcome("kernel"), case.outcome("kernel"), case.double().outcome("eager")
            same = all(map(torch.equal, found, again))
            off = [
                ((a.double() - b).norm() / b.norm().clamp(min=1e-3)).item() for a, b in zip(found, exact, strict=True)
            ]
            words = f"{str(dtype).removeprefix('torch.')}{', residual' * residual}{', ties' * ties}"
            rows.append(row("kernel", name, words, max(off) if same else float("nan"), near))
    return rows


def _classifier(model: Any) -> tuple[str, ...]:
    named = model.pretrained_cfg.get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def resumed(kind: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of one kind of stopped run."""
    folder = options.state.parent / f"{options.state.stem}-{kind}"
    folder.mkdir(parents=True, exist_ok=True)
    deterministic = kind == "deterministic"
    recipe = Recipe(
        model="cbam_resnet20_cifar", data=options.data, epochs=options.epochs, batch_size=options.batch,
        optimizer="sgd", lr=0.1,
        weight_decay=5e-4, warmup_epochs=0.5, crop_scale=1.0, crop_padding=4, hflip=0.0, mixup=0.2, cutout=8,
        ema_decay=0.99, label_smoothing=0.1, loader="device", device=options.device,
        amp="off" if deterministic else "bf16", channels_last=not deterministic, compile=not deterministic,
    )  # fmt: skip
    write_whole(folder / "recipe.toml", lambda path: path.write_text(dump_recipe(recipe), encoding="utf-8"))
    start = [sys.executable, *(["-c", CHILD] if deterministic else ["-m", "zoo"]), "train"]

    def whole(name: str) -> Path:
        if not (folder / name / "model").exists():
            _clear(folder / name)
            _wait(_child([*start, str(folder / "recipe.toml"), "--out", str(folder / name)], folder / name))
        return folder / name

    reference = whole("whole")
    stopped = _clear(folder / "stopped")
    process = _child([*start, str(folder / "recipe.toml"), "--out", str(stopped)], stopped)
    while process.poll() is None and _epochs(stopped) < recipe.epochs // 2:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    at = len(_metrics(stopped))
    _wait(_child([*start, "--resume", str(stopped)], stopped))
    wanted, got = (load_file(run / "model" / "model.safetensors") for run in (reference, stopped))
    tops = [float(_metrics(run)[-1]["val_top1"]) for run in (stopped, reference)]
    noise = 0.0
    if not deterministic:
        noise = distance(load_file(whole("again") / "model" / "model.safetensors"), wanted)
    words = f"resumed after epoch {at} of {recipe.epochs}"
    if code != UNFINISHED:
        return [row("resume", recipe.model, f"{kind}: ended with {code} instead of stopping", float("nan"), 0.0)]
    equal = all(torch.equal(got[name], wanted[name]) for name in wanted)
    error = 0.0 if equal else distance(got, wanted)
    return [row("resume", recipe.model, f"{kind}: {words}", error, APART * noise, top1=tops, noise=noise)]


def _clear(run: Path) -> Path:
    shutil.rmtree(run, ignore_errors=True)
    return run


def _child(command: list[str], run: Path) -> "subprocess.Popen[bytes]":
    paths = [str(Path(zoo.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    with run.with_suffix(".txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def _wait(process: "subprocess.Popen[bytes]") -> None:
    if code := process.wait():
        raise OSError(f"a run ended with {code}; its output is beside its folder: {process.args}")


def _metrics(run: Path) -> list[dict[str, str]]:
    path = run / "metrics.csv"
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []


def _epochs(run: Path) -> int:
    return len(_metrics(run))


def main(argv: Sequence[str] | None = None) -> int:
    """Check what is missing, and print the table; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(SIZES), metavar="NAME")
    parser.add_argument("--kernels", nargs="*", choices=KERNELS, default=KERNELS)
    parser.add_argument("--kernel-shape", nargs=4, type=int, default=(8, 100, 29, 31), metavar="N")
    parser.add_argument("--resumes", nargs="*", default=("deterministic", "trained"))
    parser.add_argument("--data", default="digits", help="of the resumed runs, 32x32 pixels (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=12, help="of the resumed runs")
    parser.add_argument("--backend", default="inductor", help="of torch.compile")
    parser.add_argument("--device", default="")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no check after that; one takes up to two")
    parser.add_argument("--state", type=Path, default=Path("runs/correctness.json"), help="default: %(default)s")
    parser.add_argument("--table", type=Path, default=RESULTS / "correctness.csv")
    options = parser.parse_args(argv)
    return checked(lambda: _work(argv, options))


def _work(argv: Sequence[str] | None, options: argparse.Namespace) -> int:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    until, ledger = time.monotonic() + 60 * options.minutes, Ledger(options.state)
    todo = [(f"resume {kind}", lambda kind=kind: resumed(kind, options)) for kind in options.resumes]
    todo += [(f"kernel {name}", lambda name=name: kernels(name, options)) for name in options.kernels]
    todo += [(f"gates {m}", lambda m=m: gates(m, SIZES.get(m, (32, 32)), options)) for m in options.models]
    for key, check in todo:
        if key not in ledger.rows and time.monotonic() < until:
            print(f"{key} ...", file=sys.stderr, flush=True)
            ledger.call({"command": command_line(argv), **machine(pick_device(options.device))})
            ledger.add(key, {"rows": check()})
    missing = [{"check": key, "verdict": "not yet run"} for key, _ in todo if key not in ledger.rows]
    rows = [found for key, _ in todo for found in ledger.rows.get(key, {"rows": []})["rows"]] + missing
    head = [f"batch {options.batch}, {STEPS} steps; resumed runs of {options.epochs} epochs on {options.data}; seed 0"]
    more = ["noise", "top1", "losses", "reference_losses"]
    write_table(options.table, [*COLUMNS, *more], rows, [*head, *ledger.head()])
    print_table(COLUMNS, rows)
    right, wrong = (sum(found["verdict"] == verdict for found in rows) for verdict in ("ok", "WRONG"))
    print(f"\n{right} ok, {wrong} wrong, {len(missing)} not yet run -> {options.table}")
    return 1 if wrong else UNFINISHED if missing else 0


if __name__ == "__main__":
    sys.exit(main())
