"""The images of a run's split.csv found again in its data, which may have moved or changed since."""

import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data.listing import SKIPPED, Listed, are_files, list_places, sizes_of
from zoo.data.sources.parts import PART_NAMES, WHOLE, Parts

OTHERS = ("added", "relabelled", "moved", "rewritten")


@dataclass(frozen=True)
class Found:
    """A run's listing beside its data as that is now; images are named by their paths."""

    parts: dict[str, list[tuple[Path, str]]]
    """Images that are in both, with the labels they have now, by the run's parts and in its order."""
    removed: list[str]
    added: list[str]
    relabelled: list[str]
    moved: list[str]
    """To another part, in data that has parts of its own."""
    rewritten: list[str]
    """Of another size than they had."""
    classes: list[str]
    """Those that only one of the two has, in words."""

    @property
    def changes(self) -> str:
        """What has changed, by name; empty if nothing has."""
        return self._told(["removed", *OTHERS])

    @property
    def changes_of_what_is_left(self) -> str:
        """The same without what was removed: data may be a part of what the run had."""
        return self._told(OTHERS)

    def _told(self, kinds: Sequence[str]) -> str:
        counted = [f"{len(names)} {kind} ({some(names)})" for kind in kinds if (names := getattr(self, kind))]
        return "; ".join([*self.classes, *([f"images: {', '.join(counted)}"] if counted else [])])

    def as_parts(self, source: Parts) -> Parts:
        """`source` in the run's parts, without the images and the classes that the run does not have."""
        there = {part: self.parts[part] for part in PART_NAMES if part in self.parts}
        labels = {label for images in there.values() for _, label in images}
        classes = tuple(name for name in source.classes if name in labels)
        index = {name: k for k, name in enumerate(classes)}
        kind = type(next(iter(source.parts.values())))
        parts = {
            part: kind([image for image, _ in images], [index[label] for _, label in images])
            for part, images in there.items()
        }
        origins = {part: source.origins.get(part, f"{part} of its split.csv") for part in parts}
        if "val" in parts and "val" not in source.parts:
            origins["val"] = split_here(len(parts["val"]), len(parts["val"]) + len(parts.get("train", ())))
        return Parts(parts, classes, origins, source.by_name)


def split_here(held_out: int, images: int) -> str:
    """In words, where a validation part comes from that was split off."""
    return f"a stratified {held_out} of {images} images, the same for every training seed"


def some(names: Sequence[str], at_most: int = 2) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more


def find_again(source: Parts, rows: Sequence[Listed]) -> Found | None:
    """Find the listed images in data: by their places, or in data that was moved by their names and content.

    None if none of them is there, or if the data holds no files: then it is other data.
    """
    if not are_files(source.parts):
        return None
    there = list_places(source.parts, source.classes)
    pairs = _pair(rows, there)
    if not pairs:
        return None
    images = [image for part in source.parts.values() for image in part.images]
    sizes = dict(zip(pairs, sizes_of([there[now].path for now in pairs.values()]), strict=True))
    parts: dict[str, list[tuple[Path, str]]] = defaultdict(list)
    relabelled, moved, rewritten = [], [], []
    for number, row in enumerate(rows):
        if number not in pairs:
            continue
        now = there[pairs[number]]
        parts[row.split].append((images[pairs[number]], now.label))
        if row.split == SKIPPED:
            continue
        if row.label != now.label:
            relabelled.append(f"{now.path}: {now.label}, was {row.label}")
        if now.split not in (WHOLE, row.split if row.split in source.parts else "train"):
            moved.append(f"{now.path}: {now.split}, was {row.split}")
        if row.bytes not in (None, sizes[number]):
            rewritten.append(now.path)
    known = set(pairs.values())
    return Found(
        dict(parts),
        removed=[row.path for number, row in enumerate(rows) if number not in pairs and row.split != SKIPPED],
        added=[row.path for k, row in enumerate(there) if k not in known],
        relabelled=relabelled,
        moved=moved,
        rewritten=rewritten,
        classes=_other_classes({row.label for row in rows if row.split != SKIPPED}, set(source.classes)),
    )


def _other_classes(before: set[str], now: set[str]) -> list[str]:
    told = (("gone", before - now), ("new", now - before))
    return [f"classes that are {word}: {some(sorted(names))}" for word, names in told if names]


def _pair(rows: Sequence[Listed], there: Sequence[Listed]) -> dict[int, int]:
    """Number of a row -> number of the same image in the data."""
    pairs: dict[int, int] = {}
    for key in (lambda row: (row.path, row.label), lambda row: row.path, lambda row: os.path.realpath(row.path)):
        _pair_by(key, rows, there, pairs)
        if len(pairs) in (len(rows), len(there)):
            return pairs
    return pairs or _pair_moved(rows, there)


def _pair_by(
    key: Callable[[Listed], Hashable], rows: Sequence[Listed], there: Sequence[Listed], pairs: dict[int, int]
) -> None:
    """Add rows and images of equal key that are in no pair yet; of equal ones the first to the first."""
    taken = set(pairs.values())
    free: dict[Hashable, list[int]] = defaultdict(list)
    for k in reversed(range(len(there))):
        if k not in taken:
            free[key(there[k])].append(k)
    for number, row in enumerate(rows):
        if number not in pairs and (same := free.get(key(row))):
            pairs[number] = same.pop()


def _pair_moved(rows: Sequence[Listed], there: Sequence[Listed]) -> dict[int, int]:
    """Pairs of equal place below the folder that all share, and of equal content.

    Where the listed file is gone its size has to do, and half of the data has to agree.
    """
    pairs: dict[int, int] = {}
    listed, now = (_below_their_folder(each) for each in (rows, there))
    _pair_by(lambda row: row.path, listed, now, pairs)
    sizes = sizes_of([there[k].path for k in pairs.values()])
    pairs = {n: k for (n, k), size in zip(pairs.items(), sizes, strict=True) if rows[n].bytes in (None, size)}
    copies = {n: k for n, k in pairs.items() if os.path.isfile(rows[n].path)}
    gone = {n: k for n, k in pairs.items() if not os.path.exists(rows[n].path)}
    same = {n: k for n, k in copies.items() if _bytes(rows[n].path) == _bytes(there[k].path)}
    return same | gone if same or 2 * len(gone) >= len(there) else {}


def _bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def _below_their_folder(rows: Sequence[Listed]) -> list[Listed]:
    root = os.path.commonpath([os.path.dirname(row.path) for row in rows])
    return [row._replace(path=os.path.relpath(row.path, root)) for row in rows]
