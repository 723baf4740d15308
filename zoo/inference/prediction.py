"""Predict: class names and probabilities of images or volumes, streaming over folders of any size."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from timm.data import create_transform
from torch import Tensor

from zoo.data import EXTENSIONS, DataError, read_image
from zoo.data.augment import normaliser
from zoo.data.volumes import find_volumes, fit, read_volume
from zoo.inference.trained import Trained
from zoo.models.count import input_size


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
    return iter(find_volumes(paths)) if len(input_size(trained.network)) == 4 else find_images(paths)


def find_images(paths: Iterable[str | Path]) -> Iterator[Path]:
    """The files named, and the images below the folders named. Raises DataError for a path that is not there."""
    for path in map(Path, paths):
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.suffix.lower() in EXTENSIONS)
        elif path.is_file():
            yield path
        else:
            raise DataError(f"there is no file or folder {path}")


def predict(trained: Trained, files: Iterable[Path], top_k: int = 5, batch_size: int = 32) -> Iterator[Prediction]:
    """Predictions in the order of `files`, a batch at a time. A file that cannot be read has an `error`."""
    read = _reader(trained)
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


def _reader(trained: Trained) -> Callable[[Path], Tensor]:
    """A file to the network's input, without the batch's axis."""
    size, config = input_size(trained.network), trained.config
    if len(size) == 3:
        transform = create_transform(**config)
        return lambda file: transform(read_image(file))  # pyright: ignore
    normalise = normaliser(config["mean"], config["std"], torch.device("cpu"), torch.contiguous_format, axes=3)
    return lambda file: normalise(fit(read_volume(file, frames=size[1]), size).movedim(-1, 0)[None])[0]
