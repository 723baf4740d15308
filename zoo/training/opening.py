"""What a run says before it trains: all that was chosen for it."""

from pathlib import Path
from typing import Any

from zoo.attention import BAM, CBAM, SqueezeExcite
from zoo.attention.kernels import in_words
from zoo.data.loaders import DeviceBatches
from zoo.hardware import at_work
from zoo.models.macs import parameter_count
from zoo.training.job import Job
from zoo.training.parameter_groups import new_parts
from zoo.training.state import State

EVENED = {"none": "", "sampler": ", drawn equally often", "loss": ", weighed by the inverse of their sizes"}
"""What a recipe's `balance` does, behind the number of classes."""


def opening(job: Job, state: State, directory: Path) -> str:
    """Model, device, data, length and rates, and where it goes, a line each."""
    lines = (
        _model(job, state.model),
        _device(job, state.model),
        _data(job),
        _length(job),
        _place(job, state, directory),
    )
    return "\n".join(lines)


def _model(job: Job, model: Any) -> str:
    recipe = job.recipe
    start = recipe.weights or ("the weights of its tag" if recipe.pretrained else "random weights")
    return f"{recipe.model}: {_many(parameter_count(model))} parameters, from {start}; {_trains(job, model)}"


def _trains(job: Job, model: Any) -> str:
    """What trains, and what is frozen; before the first epoch, in which more may be."""
    recipe, new = job.recipe, new_parts(model)
    named = {name: each for name, each in model.named_parameters()}
    own = {name for name, each in named.items() if not each.requires_grad}
    frozen = {name for name in named if name in own or name.startswith(recipe.freeze or ("\0",))}
    words = [f"{_many(sum(named[name].numel() for name in named.keys() - frozen))} train" if frozen else "all train"]
    if frozen:
        whose = [*recipe.freeze, *(["what the network freezes itself"] if own else [])]
        words.append(f"frozen: {', '.join(whose)}")
    if recipe.head_epochs:
        first = sum(each.numel() for name, each in named.items() if name.startswith(new) and name not in frozen)
        words.append(f"{_many(first)} of head and gates alone for {_epochs(recipe.head_epochs)}")
    return ", ".join(words)


def _device(job: Job, model: Any) -> str:
    recipe, world = job.recipe, job.world
    extras = [name for name in ("channels_last", "compile") if getattr(recipe, name)]
    many = [f"{world.size} processes"] if world.size > 1 else []
    loaded = f"loaded by {recipe.workers} processes" if recipe.workers else "loaded by the process that trains"
    if isinstance(job.batches, DeviceBatches):
        loaded = "held there"
    precision = "fp32" if recipe.amp == "off" else recipe.amp
    attends = world.device.type == "cpu" and any(
        isinstance(module, BAM | CBAM | SqueezeExcite) for module in model.modules()
    )
    form = [in_words()] if attends else []
    words = [at_work(world.device), *many, precision, *extras, *form, f"{job.spec.kind.many} {loaded}"]
    return f"device {world.device}: {', '.join(words)}"


def _data(job: Job) -> str:
    data, size = job.data, "x".join(map(str, job.spec.size))
    parts = [f"{len(data.train)} {job.spec.kind.many} to train on", f"{_length_of(data.val)} to validate on"]
    if data.test is not None:
        parts.append(f"{_length_of(data.test)} to test on")
    held = f"the result is of {data.split}"
    classes = f"{len(data.classes)} classes{EVENED[job.recipe.balance]}"
    return f"{job.recipe.data}: {', '.join(parts)}, {classes}, {size} {job.spec.kind.unit}; {held}"


def _length(job: Job) -> str:
    recipe, updates = job.recipe, job.batches.updates
    parts = f" in {recipe.accumulate} micro-batches" if recipe.accumulate > 1 else ""
    early = f", or until {_epochs(recipe.patience)} bring no better one" if recipe.patience else ""
    rates = f"{recipe.optimizer}, {recipe.schedule}, lr {recipe.lr:g} after {recipe.warmup_epochs:g} epochs of warm-up"
    return f"{_epochs(recipe.epochs)} of {updates} updates of {recipe.batch_size}{parts}{early}; {rates}"


def _place(job: Job, state: State, directory: Path) -> str:
    if not state.step:
        return f"run: {directory}"
    return f"run: {directory}, goes on after update {state.step} (epoch {state.step // job.batches.updates + 1})"


def _many(count: int) -> str:
    """A number of parameters, in words."""
    return f"{count / 1e6:.3g} M" if count >= 1e6 else f"{count / 1e3:.3g} k" if count >= 1e3 else str(count)


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _length_of(part: Any) -> str:
    return str(len(part)) if hasattr(part, "__len__") else "a stream"
