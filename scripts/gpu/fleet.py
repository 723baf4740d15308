"""Many runs of `zoo train`, several side by side on one GPU, in a call that may have to end before they do.

Each run is a process of its own in a folder of its own below the state. A finished run is not repeated, an interrupted
one goes on with `--resume`, and SIGTERM (from outside, or from the time limit) stops all after their current update.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from bundle import pack, unpack
from tables import UNFINISHED, Ledger, command_line, machine, print_table, write_table

import zoo
from zoo.data.input_spec import input_spec
from zoo.inference.device import pick_device
from zoo.models.macs import macs, parameter_count
from zoo.training.checkpoint import checkpoints
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import dump_value, load_recipe
from zoo.training.run_directory import read_result
from zoo.training.starting_model import create_model
from zoo.weights.known import UnknownModelError, require_model

GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL; an update and the writing of a checkpoint fit in easily."""
RECIPES = {"mobilenetv2_100": "mobilenetv2", "resnext29_8x64d": "resnext29"}
"""What recipe files call a backbone, where it is not the backbone's name."""
SIDE_BY_SIDE = ((0.2, 6), (1.0, 2))
"""(GMACs, runs): networks below so many multiply-accumulates an image leave a large GPU idle most of the time, so that
many share it; those above all do not. Not tuned yet: the column `busy` of throughput.csv will tell."""


@dataclass(frozen=True)
class Network:
    """What is to be trained, with several seeds."""

    name: str
    """One word; folders are called by it."""
    model: str
    source: Path
    """The recipe's file."""
    attn_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> tuple[str, ...]:
        """As overrides of the recipe."""
        switches = (f"attn_kwargs={dump_value(self.attn_kwargs)}",) if self.attn_kwargs else ()
        return (f"model={self.model}", *switches)


@dataclass(frozen=True, eq=False)
class Planned:
    """A run that is to be."""

    name: str
    """The network's."""
    seed: int
    recipe: Recipe
    """As it will be trained, all overrides applied."""
    source: Path
    """The recipe's file."""
    overrides: tuple[str, ...]
    directory: Path
    share: Fraction
    """Of the GPU."""

    @property
    def finished(self) -> bool:
        """Whether its model is there."""
        return (self.directory / "model" / "config.json").is_file()

    @cached_property
    def result(self) -> dict[str, Any]:
        """What the finished run measured."""
        return read_result(self.directory)

    def command(self) -> list[str]:
        """What starts the run, or goes on with it."""
        train = [sys.executable, "-m", "zoo", "train"]
        if checkpoints(self.directory / "checkpoint"):
            return [*train, "--resume", str(self.directory)]
        shutil.rmtree(self.directory, ignore_errors=True)  # it was stopped before it had anything to go on from
        changes = [word for text in self.overrides for word in ("--set", text)]
        return [*train, str(self.source), "--out", str(self.directory), *changes]


def each_attention(options: argparse.Namespace) -> list[Network]:
    """The networks of `--backbones` x `--attentions`."""
    networks = []
    for backbone in options.backbones:
        source = Path(options.recipe.format(backbone=RECIPES.get(backbone, backbone)))
        for attention in options.attentions:
            model = f"{'' if attention == 'plain' else attention + '_'}{backbone}_cifar"
            networks.append(Network(model, model, source))
    return networks


def plan(networks: Sequence[Network], options: argparse.Namespace) -> list[Planned]:
    """All runs: the first seed of every network, then the second one, so that an early end leaves whole columns.

    Raises RecipeError if a recipe is not there or wrong, or if the state holds a run by another recipe, and
    UnknownModelError.
    """
    runs = []
    for seed in options.seeds:
        for network in networks:
            overrides = (*network.settings(), f"data={options.data}", f"seed={seed}", *options.set)
            recipe = load_recipe(network.source, overrides)
            if recipe.patience:
                raise RecipeError(
                    f"{network.source}: patience picks an epoch by held-out images; here the last one counts"
                )
            require_model(network.model)
            directory = options.state / f"{network.name}-{seed}"
            _same(recipe, directory)
            share = Fraction(1, options.side_by_side or side_by_side(network.model))
            runs.append(Planned(network.name, seed, recipe, network.source, overrides, directory, share))
    return runs


def _same(recipe: Recipe, directory: Path) -> None:
    if not (directory / "recipe.toml").is_file():
        return
    there, wanted = asdict(load_recipe(directory / "recipe.toml")), asdict(recipe)
    # A run writes the form of its gates into its recipe, where the one it is started by need not name it.
    wanted["attn_kwargs"] = {**{k: v for k, v in there["attn_kwargs"].items() if k == "neutral"}, **recipe.attn_kwargs}
    if other := [key for key in wanted if wanted[key] != there[key]]:
        raise RecipeError(
            f"{directory} was trained with {other[0]} = {there[other[0]]!r}, not {wanted[other[0]]!r}; give the same "
            "arguments as before, or another --state"
        )


@cache
def side_by_side(model: str) -> int:
    """How many runs of this model share the GPU by default."""
    with torch.device("meta"):
        network: Any = timm.create_model(model)
    cost = macs(network, input_spec(network).shape) / 1e9
    return next((count for limit, count in SIDE_BY_SIDE if cost < limit), 1)


def carry_out(runs: Sequence[Planned], seconds: float, settle: Callable[[Planned], None]) -> dict[str, str]:
    """Run what is not finished, until all is or the time is over; `settle` is called with every finished run.

    Returns what went wrong, by the folder's name. Such a run is not tried again in this call.
    """
    until, failures = time.monotonic() + seconds, {}
    waiting = [run for run in runs if not run.finished]
    going: dict[Planned, subprocess.Popen[bytes]] = {}
    environment = _environment(waiting)
    for run in runs:
        if run.finished:
            settle(run)
    with _signals() as asked:
        try:
            while (waiting or going) and not asked and time.monotonic() < until:
                free = 1 - sum(run.share for run in going)
                if run := next((run for run in waiting if run.share <= free), None):
                    waiting.remove(run)
                    going[run] = _start(run, environment)
                    continue
                time.sleep(0.1)
                for run in [run for run, process in going.items() if process.poll() is not None]:
                    if failure := _end(run, going.pop(run).returncode):
                        failures[run.directory.name] = failure
                    elif run.finished:
                        settle(run)
        finally:
            _stop(going)
    for run in going:
        if run.finished:
            settle(run)
    return failures


def _environment(waiting: Sequence[Planned]) -> dict[str, str]:
    """The processes find this zoo, and share the cores."""
    at_once = max((int(1 / run.share) for run in waiting), default=1)
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    path = os.pathsep.join(filter(None, [str(Path(zoo.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    return {"OMP_NUM_THREADS": threads, **os.environ, "PYTHONPATH": path}


def _start(run: Planned, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    command = run.command()
    _say(f"{run.directory.name}: {'goes on' if '--resume' in command else 'starts'}")
    log = run.directory.parent / "logs" / f"{run.directory.name}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def _stop(going: dict[Planned, "subprocess.Popen[bytes]"]) -> None:
    """Stop all runs that still go; they save."""
    for process in going.values():
        process.send_signal(signal.SIGTERM)
    limit = time.monotonic() + GRACE
    for run, process in going.items():
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
        _end(run, process.wait())


def _end(run: Planned, code: int) -> str:
    """Tell how a run ended; returns what went wrong if it did not finish and was not stopped either."""
    if run.finished:
        _say(f"{run.directory.name}: top-1 {run.result['top1']:.2f} %, {run.result['seconds']:.0f} s")
        return ""
    if code in (UNFINISHED, -signal.SIGTERM, -signal.SIGKILL):
        saved = checkpoints(run.directory / "checkpoint")
        _say(f"{run.directory.name}: stopped, {'saved' if saved else 'nothing to save yet'}")
        return ""
    log = run.directory.parent / "logs" / f"{run.directory.name}.txt"
    last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no word"])[-1]
    _say(f"{run.directory.name}: failed with {code}: {last}")
    return last


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT add to, instead of ending this process alone."""
    asked: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def summary(runs: Sequence[Planned]) -> list[dict[str, Any]]:
    """A row a network: what its finished runs measured on all held-out images after the last epoch."""
    rows = []
    for name in dict.fromkeys(run.name for run in runs):
        of_model = [run for run in runs if run.name == name]
        recipe = of_model[0].recipe
        results = [run.result for run in of_model if run.finished]
        top1 = [result["top1"] for result in results]
        with torch.device("meta"):
            network = create_model(recipe, [str(k) for k in range(_classes(of_model))])
        row: dict[str, Any] = {"model": name, "parameters": parameter_count(network)}
        row |= {"runs": f"{len(results)} of {len(of_model)}", "seeds": [r.seed for r in of_model if r.finished]}
        if results:
            row |= {"top1_mean": f"{statistics.mean(top1):.2f}", "top1": [f"{value:.2f}" for value in top1]}
            row |= {"top1_sd": f"{statistics.stdev(top1):.2f}" if len(top1) > 1 else "-"}
            row |= {"n": results[0]["n"], "epochs": results[0]["epochs"], "split": results[0]["split"]}
            row |= {f: statistics.median(r[f] for r in results) for f in ("images_per_second", "seconds")}
            row |= {"side_by_side": int(1 / of_model[0].share)}
        else:
            row["top1_mean"] = "not yet run"
        rows.append(row)
    return rows


def _classes(runs: Sequence[Planned]) -> int:
    """Those of the data as a finished run knows them; CIFAR-100's before."""
    finished = [run.directory / "model" / "config.json" for run in runs if run.finished]
    return json.loads(finished[0].read_text(encoding="utf-8"))["num_classes"] if finished else 100


def arguments(description: str | None, recipe: str, state: str, table: Path) -> argparse.ArgumentParser:
    """What all jobs that train on CIFAR-100 take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="cifar100", help="folder of CIFAR-100's parquet files; the same in every call"
    )
    parser.add_argument("--recipe", default=recipe, help="file with {backbone} in its name (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--side-by-side", type=int, default=0, help="runs at once; 0 goes by the network's size")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop all runs then; the end takes up to a minute")
    parser.add_argument("--state", type=Path, default=Path(state), help="folder of the runs (default: %(default)s)")
    parser.add_argument(
        "--bundle", type=Path, help="folder to take the state from, if it is not there, and to pack it in"
    )
    parser.add_argument("--bundle-mib", type=float, default=0.0, help="size of the bundle; 0 is no limit")
    parser.add_argument("--piece-mib", type=float, default=15.0, help="size of each of its files")
    parser.add_argument("--table", type=Path, default=table)
    return parser


def work(
    argv: Sequence[str] | None,
    options: argparse.Namespace,
    networks: Sequence[Network],
    settle: Callable[[Planned], None],
    finish: Callable[[Sequence[Planned], list[dict[str, Any]]], Sequence[str]],
) -> int:
    """A call of a CIFAR-100 job: take up the state, carry out, tabulate, pack.

    `finish` changes the rows of the table and returns the columns to print. The exit code is 0 if all runs are
    finished, UNFINISHED if some are not, 1 if some failed.
    """
    if options.bundle and unpack(options.bundle, options.state):
        _say(f"the state is that of {options.bundle}")
    runs = plan(networks, options)
    ledger = Ledger(options.state / "calls.json")
    if options.minutes > 0 and not all(run.finished for run in runs):
        ledger.call({"command": command_line(argv), **machine(pick_device(runs[0].recipe.device))})
        ledger.save()
    failures = carry_out(runs, 60 * options.minutes, settle)
    rows = summary(runs)
    shown = finish(runs, rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    head = [
        "top-1 in percent on all held-out images after the last epoch; sd over seeds; images_per_second and seconds"
    ]
    head += ["are medians over runs that shared the GPU with others: side_by_side runs at once", *ledger.head()]
    write_table(options.table, columns, rows, head)
    if options.bundle:
        for path in pack(options.state, options.bundle, options.piece_mib, options.bundle_mib):
            _say(f"not in the bundle: {path}")
    print_table(shown, rows)
    print(f"\n{sum(run.finished for run in runs)} of {len(runs)} runs finished -> {options.table}")
    for name, failure in failures.items():
        print(f"failed: {name}: {failure}")
    return 1 if failures else 0 if all(run.finished for run in runs) else UNFINISHED


def checked(main: Callable[[], int]) -> int:
    """The exit code, 2 with one line for a mistake in the arguments."""
    try:
        return main()
    except (RecipeError, UnknownModelError, OSError) as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
