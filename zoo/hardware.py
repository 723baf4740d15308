"""The machine in words, as tables, cards and runs name it."""

import os
import platform
from pathlib import Path

import torch


def hardware(device: torch.device) -> str:
    """The GPU, or the processor and its cores."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(errors="replace").splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores" if device.type == "cpu" else f"{device.type} of {name}"


def at_work(device: torch.device) -> str:
    """The same and, of a processor, how many threads compute, such as `AMD EPYC, 2 cores, 1 thread`."""
    threads = torch.get_num_threads()
    words = f", {threads} thread{'s' if threads > 1 else ''}" if device.type == "cpu" else ""
    return hardware(device) + words
