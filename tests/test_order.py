"""What is random in training is a function of what it is for: on every device, and in every process."""

from types import SimpleNamespace

import pytest
import torch

from zoo.data.augment import mixer
from zoo.data.order import seed_all, seed_of


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_the_accelerator_that_is_there_gets_the_seed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for what this machine lacks; they have what torch's own modules of these names have."""
    module = getattr(torch, name)
    assert callable(module.manual_seed) and (name == "mps") != hasattr(module, "is_initialized")
    given: list[int] = []
    there = SimpleNamespace(manual_seed=given.append)
    monkeypatch.setattr(torch, "get_device_module", lambda: there)
    seed_all("step", 3, 4)
    there.is_initialized = lambda: False  # as CUDA is while a run is on the CPU
    seed_all("step", 3, 5)
    assert given == [seed_of("step", 3, 4)]


def test_mixing_draws_once_for_each_process_and_step() -> None:
    """As zoo/training/README.md says of mixup and cutmix."""
    labels = torch.arange(4)

    def mixed(step: int, rank: int) -> torch.Tensor:
        seed_all("step", 0, step, rank)
        return mixer(0.8, 1.0, 0.0, 4)(torch.zeros(4, 3, 8, 8), labels)[1]

    assert torch.equal(mixed(1, 0), mixed(1, 0))
    assert not torch.equal(mixed(1, 0), mixed(1, 1)) and not torch.equal(mixed(1, 0), mixed(2, 0))
