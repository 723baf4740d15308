"""Does the attention of a network do anything: `zoo.gate_report`.

A gate that has learnt only a constant could as well be a weight of the network. So the gates are fixed, at their
averages over the images or at what they start from, and it is counted how many answers become others.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zoo.attention import Attention
from zoo.explain.maps import start_of
from zoo.explain.watching import ExplainError, Fixed, at_rest, attention_modules, fixing, watched

NOT_USED, HARDLY_USED = 0.02, 0.05
"""Shares of answers that fixed gates change, below which a network does not use its attention, or hardly."""


@dataclass(frozen=True)
class GateFacts:
    """One gate over a data set."""

    mean: float
    start: float
    """What it starts from: 1 where neutral, nan for SimAM."""
    deviation: float
    """Mean distance from `start`."""
    between_images: float
    """How a value differs from image to image: standard deviation, root mean square over all values of the gate."""
    within: float
    """How the channels or places differ from each other: standard deviation of their averages over the images."""


@dataclass(frozen=True)
class Answers:
    """What a network answers with its gates fixed."""

    changed: int
    """Answers (most probable classes) that became others."""
    top1: float
    """Percent."""


@dataclass(frozen=True)
class GateReport:
    """What the gates of a network do on a data set."""

    n: int
    top1: float
    """Percent, as the network is."""
    gates: Mapping[str, GateFacts]
    """By path and name, such as `layer1.0.se.channel`."""
    fixed: Mapping[str, Answers]
    """With `all` gates at their averages, the `channel` or the `spatial` ones alone, or all at their `start`."""

    @property
    def between_images(self) -> float:
        """The mean of the gates'."""
        return sum(gate.between_images for gate in self.gates.values()) / len(self.gates)

    @property
    def sentence(self) -> str:
        """What it comes to, for a person."""
        answers = self.fixed["all"]
        share = answers.changed / self.n
        if share < NOT_USED:
            verdict = "this network does not use attention, a plain one will do"
        else:
            verdict = f"this network {'hardly uses' if share < HARDLY_USED else 'uses'} its attention"
        return (
            f"The gates differ by {self.between_images:.3f} between images; fixing them at their averages changes "
            f"{answers.changed} of {self.n} answers (top-1 {answers.top1:.2f} instead of {self.top1:.2f} %): {verdict}."
        )

    @property
    def summary(self) -> dict[str, Any]:
        """What a card and config.json say."""
        fixed = {which: asdict(answers) for which, answers in self.fixed.items()}
        return {"sentence": self.sentence, "n": self.n, "top1": self.top1, "fixed": fixed}

    def as_json(self) -> dict[str, Any]:
        """All of it, with None for what is not defined."""
        facts = {"sentence": self.sentence, **asdict(self)}
        for gate in facts["gates"].values():
            gate |= {key: None for key, value in gate.items() if math.isnan(value)}
        return facts

    def text(self) -> str:
        """The sentence, and a table of the gates."""
        width = max(map(len, self.gates))
        head = f"{'gate':{width}}    mean   start  from start  between images  within"
        rows = [
            f"{name:{width}}  {gate.mean:6.3f}  {gate.start:6.3f}  {gate.deviation:10.4f}"
            f"  {gate.between_images:14.4f}  {gate.within:6.4f}"
            for name, gate in self.gates.items()
        ]
        held = [
            f"{WORDS[which]}: {answers.changed} of {self.n} answers change, top-1 {answers.top1:.2f} %"
            for which, answers in self.fixed.items()
        ]
        return "\n".join([self.sentence, "", *held, "", head, *rows])


WORDS = {
    "all": "all gates at their averages",
    "channel": "channel gates alone at their averages",
    "spatial": "spatial gates alone at their averages",
    "start": "all gates at what they start from",
}
"""Of `GateReport.fixed`."""


def gate_report(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> GateReport:
    """What the gates of `model` do on `batches` of normalised images (B, C, H, W) and class indices (B,).

    It goes over the batches once, and once more for each way to fix the gates: give a list, or a loader that does not
    shuffle. Where the channel gates alone are fixed, CBAM's spatial gate is still what it was behind the unfixed one.
    Raises ExplainError for a network without attention, without images, and for batches that come but once.
    """
    if iter(batches) is batches:
        raise ExplainError("the batches can be gone over only once; give a list of them, or a loader")
    modules = attention_modules(model)
    seen: dict[str, dict[str, _Seen]] = {}

    def see(path: str, module: Attention, x: Tensor, output: Any) -> None:
        gates = seen.setdefault(path, {name: _Seen(start) for name, start in start_of(module, x).items()})
        for name, gate in module.gates(x).items():
            gates[name].add(gate)

    with at_rest(model):
        with watched(modules, see):
            before, labels = _answers(model, batches)
        seen = {path: gates for path, gates in seen.items() if gates}  # hard attention has none
        if not seen:
            raise ExplainError(f"{type(model).__name__} has no gates that multiply, so there are none to fix")
        fixed = {}
        for which, values in _ways(seen).items():
            with watched({path: modules[path] for path in values}, fixing(values, seen)):
                after, again = _answers(model, batches)
            if not torch.equal(labels, again):
                raise ExplainError("the batches come in another order each time; give a loader that does not shuffle")
            fixed[which] = Answers(int((after != before).sum()), _percent(after == labels))
    facts = {f"{path}.{name}": gate.facts for path, gates in seen.items() for name, gate in gates.items()}
    return GateReport(len(labels), _percent(before == labels), facts, fixed)


class _Seen:
    """What one gate was so far: sums over the images of how far it was from its start, or from 0 without one."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.origin = 0.0 if math.isnan(start) else start
        self.n = 0
        self.away = self.squares = self.distance = torch.zeros(())

    def add(self, gate: Tensor) -> None:
        away = _wide(gate) - self.origin
        self.n += len(gate)
        self.away = self.away.to(away) + away.sum(0, keepdim=True)
        self.squares = self.squares.to(away) + away.square().sum(0, keepdim=True)
        self.distance = self.distance.to(away) + away.abs().flatten(1).mean(1).sum()

    @property
    def average(self) -> Tensor:
        """Over the images, each channel and place apart."""
        return self.origin + self.away / self.n

    @property
    def facts(self) -> GateFacts:
        variance = (self.squares / self.n - (self.away / self.n).square()).clamp(min=0)
        return GateFacts(
            mean=self.average.mean().item(),
            start=self.start,
            deviation=math.nan if math.isnan(self.start) else self.distance.item() / self.n,
            between_images=variance.mean().sqrt().item(),
            within=self.average.std(correction=0).item(),
        )


def _wide(gate: Tensor) -> Tensor:
    """In double precision, which Apple's GPUs lack."""
    return (gate.cpu() if gate.device.type == "mps" else gate).double()


def _ways(seen: Mapping[str, Mapping[str, _Seen]]) -> dict[str, Fixed]:
    """What to fix, by the names of WORDS: only what the network has."""
    averages = {path: {name: gate.average for name, gate in gates.items()} for path, gates in seen.items()}
    ways: dict[str, Fixed] = {"all": averages}
    for kind in ("channel", "spatial"):
        if of_kind := {path: {kind: values[kind]} for path, values in averages.items() if kind in values}:
            ways[kind] = of_kind
    if not any(math.isnan(gate.start) for gates in seen.values() for gate in gates.values()):
        ways["start"] = {
            path: {name: torch.full_like(gate.average, gate.start) for name, gate in gates.items()}
            for path, gates in seen.items()
        }
    return ways


def _answers(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The most probable class of each image, and the true one."""
    pairs = [(model(images).argmax(1), labels) for images, labels in batches]
    if not pairs:
        raise ExplainError("there are no images to look at the gates with")
    answers, labels = zip(*pairs, strict=True)
    return torch.cat(answers), torch.cat(labels)


def _percent(hits: Tensor) -> float:
    return 100 * hits.float().mean().item()
