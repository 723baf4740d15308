"""Old names, until their last importer is gone."""

from typing import Any

from zoo.data.input_spec import input_spec
from zoo.models.macs import macs, parameter_count

__all__ = ["input_size", "macs", "parameters"]
parameters = parameter_count


def input_size(model: Any) -> tuple[int, ...]:
    """Of `input_spec`."""
    return input_spec(model).shape
