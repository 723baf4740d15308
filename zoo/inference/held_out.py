"""What a trained model is measured on: what its own run held out, or a part of other data."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data import DataError, Splitting, open_held_out
from zoo.data.found_again import Found, find_again, split_here
from zoo.data.listing import SKIPPED, Listed, read_listing
from zoo.data.record import digest_of, tells_images_apart
from zoo.data.sources import read_parts
from zoo.data.sources.parts import Parts
from zoo.data.splitting import ALL, held_out_of, leave_out_unreadable, split_parts, take_part
from zoo.inference.exported import is_exported, load_exported
from zoo.weights.config import read_config
from zoo.weights.model_folder import find_model_folder

LabelledPart = tuple[Any, tuple[str, ...], str]
"""Images or volumes, the class names, and where they come from in words."""
ROLES = {"train": "which the run trained on", "val": "held out by the run", "test": "held out by the run"}
CHOSE_THE_EPOCH = "; the same images chose the epoch"
"""Said of a validation part that gives the result of a run with `patience`, which flatters it."""


@dataclass(frozen=True)
class Run:
    """What a run, or the folder of its model, says of the data that it was trained on."""

    name: str
    recipe: Mapping[str, Any]
    listed: tuple[Listed, ...]
    """Its split.csv; empty where there is none."""
    digest: str
    """Of that data; empty in a run that was made before."""

    def role(self, part: str) -> str:
        """What a part was to the run, in words."""
        return ROLES[part] + (CHOSE_THE_EPOCH if part == "val" and self.recipe.get("patience", 0) else "")


def open_part(source: str | Path, data: str, part: str = "") -> LabelledPart:
    """What to measure the model `source` on: a part of `data` (train, val, test), or `all` of it.

    Of data that the model's run was trained on this is what that run held out, unless another part is asked for; of
    other data the test part, else val, else the whole. Raises DataError, also where it is not clear what was held out,
    and ModelError.
    """
    run = find_run(source)
    if run is None or not run.recipe:
        return open_held_out(data, part)
    parts = read_parts(data, run.recipe.get("num_classes", 0))
    if any(row.split != SKIPPED for row in run.listed):
        found = find_again(parts, run.listed)
        return held_out_of(parts, data, part) if found is None else _by_listing(run, found, parts, data, part)
    return _by_recipe(run, parts, data, part) if _is_own(run, parts, data) else held_out_of(parts, data, part)


def find_run(source: str | Path) -> Run | None:
    """What is known of a run by its directory or by a model folder, its own or another; None for any other model."""
    if is_exported(source):
        return _of_file(str(source))
    folder = find_model_folder(str(source).removeprefix("local-dir:"))
    if folder is None:
        return None
    facts = read_config(folder, str(source)).get("zoo", {})
    listing = folder.parent / "split.csv"
    of_run = folder.name == "model" and (folder.parent / "recipe.toml").is_file() and listing.is_file()
    return Run(str(source), facts.get("recipe", {}), read_listing(listing) if of_run else (), facts.get("digest", ""))


def _of_file(path: str) -> Run:
    """What `zoo export` wrote down of the run whose network it exported."""
    facts = load_exported(path).config.get("zoo", {})
    return Run(path, facts.get("recipe", {}), (), facts.get("digest", ""))


def _by_listing(run: Run, found: Found, parts: Parts, data: str, part: str) -> LabelledPart:
    """As the run's split.csv has it, as far as the images are in `data`."""
    own, listed = found.as_parts(parts), Counter(row.split for row in run.listed)
    if part == ALL:
        return _all(parts, data, len(found.parts.get("train", ())))
    wanted = part or next((name for name in ("test", "val") if name in own.parts), "")
    if not wanted:
        raise DataError(f"{run.name} was trained on all images of {data}; --part train measures on them all the same")
    changes = found.changes_of_what_is_left
    if changes and not part:
        raise DataError(
            f"{data} has changed since {run.name} was trained. {changes}; --part {wanted} measures what it held out, "
            f"--part {ALL} all there is"
        )
    images, classes, words = take_part(own, data, wanted)
    if wanted == "val" and "val" not in parts.parts:
        words = split_here(listed["val"], listed["val"] + listed["train"])
    words = f"{words}, {run.role(wanted)}"
    if len(images) < listed[wanted]:
        words += f"; {listed[wanted] - len(images)} of them are not there any more"
    return images, classes, words + ("; the data has changed since" if changes else "")


def _by_recipe(run: Run, parts: Parts, data: str, part: str) -> LabelledPart:
    """As the run's recipe splits the same data again."""
    if run.digest and run.digest != digest_of(parts):
        if part == ALL:
            return take_part(parts, data, ALL)
        raise DataError(
            f"{data} holds other images or labels than {run.name} was trained on, so what it held out is not known; "
            f"--part {ALL} measures on all of them"
        )
    usual, said = Splitting(), run.recipe  # a field that a run made before does not have was as usual
    splitting = Splitting(
        val_fraction=said.get("val_fraction", usual.val_fraction),
        seed=said.get("split_seed", usual.seed),
        keep_test=said.get("patience", 0) > 0,
    )
    if said.get("on_bad_image") == "skip":
        parts, _ = leave_out_unreadable(parts)
    own = split_parts(parts, splitting)
    if part == ALL:
        return _all(parts, data, len(own.parts["train"]))
    wanted = part or next(name for name in ("test", "val") if name in own.parts)
    images, classes, words = take_part(own, data, wanted)
    return images, classes, f"{words}, {run.role(wanted)}"


def _all(parts: Parts, data: str, trained_on: int) -> LabelledPart:
    images, classes, words = take_part(parts, data, ALL)
    return images, classes, f"{words}, {trained_on} of which the run trained on"


def _is_own(run: Run, parts: Parts, data: str) -> bool:
    """Whether `data` is what the run was trained on: by its place, or where it was moved or copied by what it holds."""
    told = "data" in run.recipe  # an exported file tells no place
    if told and _is_same_place(data, run.recipe["data"]):
        return True
    return (tells_images_apart(parts) or not told) and run.digest == digest_of(parts)


def _is_same_place(data: str, other: str) -> bool:
    """Whether two names are those of the same data, as far as names tell it."""
    (place, _, columns), (other_place, _, other_columns) = data.partition("#"), other.partition("#")
    same = Path(place).exists() and Path(place).resolve() == Path(other_place).resolve()
    return data == other or (same and columns == other_columns)
