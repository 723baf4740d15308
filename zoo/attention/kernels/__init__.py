"""Attention in fewer passes over the map; `kernels` says which form runs, choice.py by which rule."""

from zoo.attention.kernels.choice import allowed, chosen, in_words, kernels

__all__ = ["allowed", "chosen", "in_words", "kernels"]
