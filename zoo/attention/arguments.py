"""Checks of constructor arguments; each returns the value that it checked."""

from collections.abc import Collection


def require_positive(name: str, value: int) -> int:
    """Raises ValueError unless `value` is a whole number above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}; the papers use 16")
    return value


def require_odd(name: str, value: int) -> int:
    """Raises ValueError unless `value` is an odd whole number above 0, with which padding keeps the map's size."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % 2 == 0:
        raise ValueError(f"{name} must be an odd whole number such as 3, 5 or 7, not {value!r}")
    return value


def require_choice(name: str, value: str, choices: Collection[str]) -> str:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
    return value
