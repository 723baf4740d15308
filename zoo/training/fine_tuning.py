"""From a folder of photographs to a model: a recipe by the size of the set, then zoo.training.start."""

from collections.abc import Sequence
from pathlib import Path

from zoo.data import Splitting, open_data
from zoo.data.kinds import VOLUMES, kind_of
from zoo.training.recipe import Recipe, RecipeError
from zoo.training.recipe_file import make_recipe, parse_overrides
from zoo.training.run_directory import Outcome
from zoo.training.start import train
from zoo.training.starting_model import require_pretrained

UPDATES = 500
"""About as many updates as fine-tuning a pretrained network takes to settle, if the set is small."""


def finetune(
    model: str,
    data: str,
    directory: str | Path,
    weights: str = "",
    epochs: int | None = None,
    overrides: Sequence[str] = (),
    attention: str = "",
    where: Sequence[str] = (),
) -> Outcome:
    """Fine-tune and leave a run directory; its recipe.toml repeats it by `zoo train`. Raises what `train` raises."""
    return train(finetune_recipe(model, data, weights, epochs, overrides, attention, where), directory)


def finetune_recipe(
    model: str,
    data: str,
    weights: str = "",
    epochs: int | None = None,
    overrides: Sequence[str] = (),
    attention: str = "",
    where: Sequence[str] = (),
) -> Recipe:
    """The recipe for this data: small batches and many epochs for few images; of 8 or more head and gates first.

    It trains to the end and keeps the last epoch. To stop by validation images cost 4.7 points on 720 flowers and
    gained nothing on 244 ants and bees (scripts/early_stopping_table.csv): the learning rate is high until late, and
    those images are no training images.

    `weights` is a file, a run or hf-hub:ORG/NAME; without it, the weights of the model's tag. Without `epochs` their
    number is chosen; `overrides` are `key=value` texts that win. `attention` goes into a network that has none, in the
    places `where`. Raises RecipeError or DataError.
    """
    wanted = parse_overrides(overrides)
    given = {"model": model, "data": data, "weights": weights or None, "epochs": epochs}
    if twice := [name for name, value in given.items() if value is not None and name in wanted]:
        raise RecipeError(
            f"{twice[0]} is given twice, as {given[twice[0]]} and by --set as {wanted[twice[0]]}; leave the --set out"
        )
    if epochs is not None and epochs < 1:
        raise RecipeError(f"epochs must be at least 1, not {epochs}; without --epochs the size of the set chooses")
    told = {"epochs": epochs, "attention": attention or None}
    told = {name: value for name, value in told.items() if value is not None}
    asked = make_recipe({"model": model, "data": data, "pretrained": True, **told, **wanted})  # says what is wrong
    weights = weights or asked.weights
    if not weights and ":" not in model:  # a folder or a repository has its weights
        require_pretrained(model)
    splitting = Splitting(keep_test=asked.patience > 0, num_classes=asked.num_classes)
    train_on = open_data(data, splitting).train
    images = len(train_on)
    batch_size = next((size for most, size in BATCH_SIZES if images <= most), 128)
    batch_size = max(2, min(batch_size, images // 4))
    chosen = epochs or wanted.get("epochs") or min(40, max(3, round(UPDATES * batch_size / images)))
    values = {
        **FINE_TUNING,
        **(OF_VOLUMES if kind_of(train_on) is VOLUMES else {}),
        "model": model,
        "data": data,
        "weights": weights,
        "pretrained": not weights,
        "attention": attention,
        **({"where": where[0] if len(where) == 1 else tuple(where)} if where else {}),
        "batch_size": batch_size,
        "epochs": chosen,
        "head_epochs": chosen // 8,
        "warmup_epochs": min(1.0, chosen / 8),
    }
    return make_recipe(values | wanted)


BATCH_SIZES = ((500, 16), (2_000, 32), (20_000, 64))
"""(images at most, images an update)"""

FINE_TUNING = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "layer_decay": 0.85,
    "weight_decay": 0.05,
    "label_smoothing": 0.1,
    "crop_scale": 0.35,
    "color_jitter": 0.2,
}
"""What does not depend on the size of the set; configs/finetune.toml has its measured results."""
OF_VOLUMES = {"crop_scale": 1.0, "color_jitter": 0.0}
"""What volumes have not."""
