"""Predict: class names and probabilities of images or volumes, streaming over folders of any size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from zoo.data import DataError
from zoo.data.input_spec import input_spec
from zoo.inference.trained import Trained


@dataclass(frozen=True)
class Prediction:
    """What a model says of one file."""

    file: Path
    classes: tuple[tuple[str, float], ...]
    """Names and probabilities, most probable first; empty if the file could not be read."""
    error: str = ""


def find_inputs(trained: Trained, paths: Sequence[str | Path]) -> Iterator[Path]:
    """The files named, and what the model takes below the folders named: images, or .npy files and folders of frames.

    Raises DataError for a path that is not there.
    """
    return input_spec(trained.network).kind.find(paths)


def predict(trained: Trained, files: Iterable[Path], top_k: int = 5, batch_size: int = 32) -> Iterator[Prediction]:
    """Predictions in the order of `files`, a batch at a time. A file that cannot be read has an `error`."""
    spec = input_spec(trained.network)
    read = spec.kind.reader(trained.config, spec.shape)
    device = next(trained.network.parameters()).device
    remaining = iter(files)
    while batch := list(islice(remaining, batch_size)):
        tensors, errors = {}, {}
        for file in batch:
            try:
                tensors[file] = read(file)
            except DataError as error:
                errors[file] = str(error)
        found = {}
        if tensors:
            with torch.inference_mode():
                probabilities = trained.network(torch.stack(list(tensors.values())).to(device)).float().softmax(1)
            values, indices = probabilities.topk(min(top_k, probabilities.shape[1]))
            for file, row, which in zip(tensors, values.tolist(), indices.tolist(), strict=True):
                found[file] = tuple((trained.describe(i), p) for i, p in zip(which, row, strict=True))
        for file in batch:
            yield Prediction(file, found.get(file, ()), errors.get(file, ""))
