"""Learning rate of every update: a linear warm-up, then one of a few shapes. Functions of the step alone."""

import math
from collections.abc import Callable

from zoo.training.recipe import Recipe


def rate_of_step(recipe: Recipe, updates: int) -> Callable[[int], float]:
    """The learning rate as a function of the step, with `updates` steps an epoch."""
    warmup, shape = round(recipe.warmup_epochs * updates), SHAPES[recipe.schedule]

    def rate(step: int) -> float:
        if step < warmup:
            return recipe.lr * (step + 1) / warmup
        return shape(recipe, step, warmup, updates)

    return rate


def _left(recipe: Recipe, step: int, start: int, updates: int) -> float:
    """What is left of the way from the step `start` to the last one, 1 to 0."""
    total = recipe.epochs * updates
    return 1 - max(0, step - start) / max(1, total - start)


def _cosine(recipe: Recipe, step: int, warmup: int, updates: int) -> float:
    """Half a cosine: Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts."""
    share = (1 - math.cos(math.pi * _left(recipe, step, warmup, updates))) / 2
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * share


def _one_cycle(recipe: Recipe, step: int, warmup: int, updates: int) -> float:
    """Linear up (the warm-up) and linear down: Smith & Topin 2017, arXiv 1708.07120."""
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * _left(recipe, step, warmup, updates)


def _step(recipe: Recipe, step: int, warmup: int, updates: int) -> float:
    """A factor every `decay_epochs`, as in the papers of ResNet, SE and CBAM, or at the epochs of `decay_at`."""
    epoch = step / updates
    steps = sum(epoch >= at for at in recipe.decay_at) if recipe.decay_at else math.floor(epoch / recipe.decay_epochs)
    return recipe.lr * recipe.decay_rate**steps


def _warmup_stable_decay(recipe: Recipe, step: int, warmup: int, updates: int) -> float:
    """Constant, then linear down in the last `decay_epochs`: Haegele et al. 2024, arXiv 2405.18392."""
    start = max(warmup, round((recipe.epochs - recipe.decay_epochs) * updates))
    return recipe.min_lr + (recipe.lr - recipe.min_lr) * _left(recipe, step, start, updates)


def _constant(recipe: Recipe, step: int, warmup: int, updates: int) -> float:
    return recipe.lr


SHAPES: dict[str, Callable[[Recipe, int, int, int], float]] = {
    "cosine": _cosine,
    "one-cycle": _one_cycle,
    "step": _step,
    "wsd": _warmup_stable_decay,
    "constant": _constant,
}
