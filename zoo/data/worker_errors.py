"""A DataLoader that raises a DataError as its worker process raised it.

torch puts the worker's whole traceback into the message of an error that it hands on, which is right for a mistake in
the code. A DataError is a mistake in the data, which a user wants to read in one line. So it travels as a value in the
place of a batch, and is raised in the process that reads the batches. All other errors are left to torch.
"""

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

from timm.data.loader import fast_collate
from torch.utils.data import DataLoader, Dataset, IterableDataset

from zoo.data.images import DataError
from zoo.data.worker_signals import leave_signals_to_parent, signals_held


class Loader(DataLoader[Any]):
    """Batches of uint8 images and class indices by timm's `fast_collate`. Iterating raises DataError."""

    def __init__(self, dataset: Any, **options: Any) -> None:
        kind = _ErrorsAsLastItems if isinstance(dataset, IterableDataset) else _ErrorsAsItems
        super().__init__(kind(dataset), collate_fn=_collate, worker_init_fn=leave_signals_to_parent, **options)

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with signals_held():
            batches = super().__iter__()
        for batch in batches:
            if isinstance(batch, DataError):
                raise batch
            yield batch


class _ErrorsAsItems(Dataset[Any]):
    """A map-style data set that returns a DataError instead of raising it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


class _ErrorsAsLastItems(IterableDataset[Any]):
    """A stream that ends in a DataError again and again, so that it is in a whole batch, instead of raising it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.stream
            return
        except DataError as error:
            said = DataError(*error.args)  # without the traceback, which would hold the library's threads open
        yield from repeat(said)


def _collate(items: Sequence[Any]) -> Any:
    """The items as a batch, or the first DataError among them."""
    return next((item for item in items if isinstance(item, DataError)), None) or fast_collate(items)
