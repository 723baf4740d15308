"""What is wrong with an image comes out of a worker process in one line; other errors come with their traceback."""

import pickle

import pytest
import torch
from torch import Tensor

from zoo.data import DataError
from zoo.data.worker_errors import Loader


class Squares:
    """Four images, one of which cannot be had while it is `spoiled`."""

    def __init__(self, spoiled: dict[int, Exception]) -> None:
        self.spoiled = spoiled

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in self.spoiled:
            raise self.spoiled[index]
        return torch.zeros(3, 4, 4, dtype=torch.uint8), index


@pytest.mark.parametrize(
    "workers",
    [
        {"num_workers": 0},
        {"num_workers": 1, "multiprocessing_context": "fork"},
        {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True},
    ],
    ids=["none", "fork", "fork, persistent"],
)
def test_one_line_for_the_data_and_a_traceback_for_the_rest(workers: dict[str, object]) -> None:
    data = Squares({2: DataError("cannot read 2.png"), 3: DataError("cannot read 3.png")})
    loader = Loader(data, batch_size=2, **workers)
    for _ in range(2):  # a loader goes on after an error
        batches = iter(loader)
        assert next(batches)[1].tolist() == [0, 1]
        with pytest.raises(DataError) as error:
            next(batches)
        assert str(error.value) == "cannot read 2.png"

    loader = Loader(Squares({1: ZeroDivisionError("a mistake in the code")}), batch_size=2, **workers)
    with pytest.raises(ZeroDivisionError, match="a mistake in the code") as unexpected:
        list(loader)
    if workers["num_workers"]:
        assert "Original Traceback" in str(unexpected.value) and "in __getitem__" in str(unexpected.value)


@pytest.mark.every
def test_a_spawned_worker_can_be_given_all_that_it_needs() -> None:
    """It starts with what can be pickled."""
    loader = Loader(Squares({1: DataError("cannot read 1.png")}), batch_size=2)
    data, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    error = pickle.loads(pickle.dumps(collate([data[0], data[1]])))
    assert type(error) is DataError and str(error) == "cannot read 1.png"
