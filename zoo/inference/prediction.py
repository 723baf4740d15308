"""Predict: class names and probabilities of images or volumes, streaming over folders of any size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from zoo.data import DataError
from zoo.inference.device import autocast
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
    if "" in map(str, paths):
        raise DataError("there is no file or folder of no name; give image files or folders of them")
    return trained.spec.kind.find(paths)


def predict(
    trained: Trained, files: Iterable[Path], top_k: int = 5, batch_size: int = 32, amp: str = "off"
) -> Iterator[Prediction]:
    """Predictions in the order of `files`, a batch at a time. A file that cannot be read has an `error`."""
    spec, precision = trained.spec, autocast(trained.device, amp)
    read = spec.kind.reader(trained.config, spec.shape)
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
            with torch.inference_mode(), precision():
                logits = trained.network(torch.stack(list(tensors.values())).to(trained.device))
            probabilities = logits.float().softmax(1)
            values, indices = probabilities.topk(min(top_k, probabilities.shape[1]))
            for file, row, which in zip(tensors, values.tolist(), indices.tolist(), strict=True):
                found[file] = tuple((trained.describe(i), p) for i, p in zip(which, row, strict=True))
        for file in batch:
            yield Prediction(file, found.get(file, ()), errors.get(file, ""))
