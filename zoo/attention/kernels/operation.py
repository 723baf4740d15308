"""What surrounds every operation: autocast has no say inside, and seconds that went into compiling are told."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from zoo.attention.kernels.compiled import stopwatch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
logger = logging.getLogger("zoo.attention.kernels")


def operation(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, in the precision of its arguments."""

    @wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        if torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                result = function(*arguments, **named)
        else:
            result = function(*arguments, **named)
        if stopwatch.count:
            logger.info("compiled %d kernels in %.1f s, kept for the next time", *stopwatch.take())
        return result

    return call
