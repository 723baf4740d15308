"""The device that a network runs on, and in which precision it computes there."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from zoo.errors import UserError, in_a_line

AMP = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What mixed precision can be."""


class DeviceError(UserError, ValueError):
    """A device that is not here."""


def pick_device(name: str = "") -> torch.device:
    """The device of that name; the accelerator if there is one and no name is given. Raises DeviceError."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if not name:
        return accelerator or torch.device("cpu")
    try:
        value = torch.zeros(1, device=name)
        value.item()  # which the meta device does not have
        return value.device
    except (RuntimeError, AssertionError) as error:
        there = ["cpu", *([accelerator.type] if accelerator else [])]
        why = f" ({in_a_line(error).partition('. ')[0]})" if name.startswith("cuda") else ""
        raise DeviceError(
            f"device {name!r} cannot be used here{why}; here are {' and '.join(there)}"
            if accelerator
            else f"device {name!r} cannot be used here{why}; here is the cpu alone"
        ) from error


def autocast(device: torch.device, amp: str) -> Callable[[], AbstractContextManager[Any]]:
    """What makes the context of a forward pass in that precision, a key of AMP."""
    dtype = AMP[amp]
    return partial(torch.autocast, device.type, dtype) if dtype else nullcontext
