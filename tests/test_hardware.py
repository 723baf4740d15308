"""The machine in words (zoo/hardware.py)."""

import os
from pathlib import Path

import pytest
import torch
from torch_threads import torch_threads

from zoo.hardware import at_work, hardware

CPU = torch.device("cpu")


def test_hardware_names_the_processor_as_the_kernel_does_and_its_cores() -> None:
    cpus = Path("/proc/cpuinfo")
    if not cpus.exists() or "model name" not in cpus.read_text():
        pytest.skip("no processor's name in /proc/cpuinfo")
    name, _, cores = hardware(CPU).rpartition(", ")
    assert f": {name}\n" in cpus.read_text()
    assert cores == f"{os.cpu_count()} cores"


@pytest.mark.parametrize(("threads", "words"), [(1, "1 thread"), (2, "2 threads")])
def test_at_work_adds_the_threads_that_compute(threads: int, words: str) -> None:
    with torch_threads(threads):
        assert at_work(CPU) == f"{hardware(CPU)}, {words}"
