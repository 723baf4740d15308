"""Which class of a model is which class of the data: by name, never by their number."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from timm.data import ImageNetInfo

from zoo.data import DataError
from zoo.data.found_again import some


def known_names(cfg: Mapping[str, Any], num_classes: int) -> tuple[str, ...]:
    """Name of each class index of a model, from its pretrained_cfg; WordNet ids for ImageNet's 1000 classes.

    Empty if nobody wrote them down.
    """
    names = cfg.get("label_names") or ()
    if isinstance(names, Mapping):
        names = [names[key] for key in sorted(names, key=int)]
    if not names and num_classes == 1000:
        names = imagenet().label_names()
    return tuple(map(str, names))


@cache
def imagenet() -> ImageNetInfo:
    """What timm knows of ImageNet's classes."""
    return ImageNetInfo("imagenet-1k")  # reads two files


def match_classes(
    classes: Sequence[str], known: Sequence[str], count: int, whose: str, otherwise: str, by_order: bool = False
) -> list[int]:
    """For each of the data's `classes`, its index among the `count` of the model `whose` names are `known`.

    `by_order` takes index i for class i instead. Raises DataError with both lists, and with what to do `otherwise`.
    """
    if by_order and len(classes) == count:
        return list(range(count))
    index = {name: k for k, name in enumerate(known)}
    strangers = [name for name in classes if name not in index]
    if not strangers and not by_order:
        return [index[name] for name in classes]
    theirs = some(known, 5) if known else "classes whose names nobody wrote down"
    not_known = "" if by_order or not known else f", not {strangers[0]!r}"
    raise DataError(
        f"the data's {len(classes)} classes are {some(classes, 5)}, and {whose} knows {count}: {theirs}{not_known}; "
        f"{otherwise}"
    )
