"""The `zoo` command: one verb, one function with a typed signature. Verbs import what is slow when they run."""

from zoo.cli.command import main

__all__ = ["main"]
