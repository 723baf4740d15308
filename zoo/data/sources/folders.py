"""`photos`: a folder of class folders, with folders of parts above them or without; `frames/clips` likewise of clips.

Names alone do not tell parts from classes, as a class may be called train or test. A part holds class folders, a class
of images holds images. What can be read in two ways is refused.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from zoo.data.images import EXTENSIONS, DataError
from zoo.data.sources.labels import class_of
from zoo.data.sources.parts import WHOLE, Parts, labelled, part_called

FindInClass = Callable[[Path], list[Path]]
"""What a class folder holds: a path for each image or volume."""
SUFFIXES = {*EXTENSIONS, ".npy"}


def read_folder(root: Path) -> Parts:
    """Image files, or volumes as .npy files, anywhere below each class folder. Raises DataError."""
    return _read(root, find_files, class_depth=0)


def read_clips(root: Path) -> Parts:
    """Class folders of folders, each of which holds the frames of one clip. Raises DataError."""
    return _read(root, subfolders, class_depth=1)


def subfolders(folder: Path) -> list[Path]:
    """Folders in it, in sorted order, without hidden ones."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_files(folder: Path) -> list[Path]:
    """Images and volumes anywhere below it, by sorted path; whatever lies there under such a name, links too."""
    return sorted(path for path in walk(folder) if path.suffix.lower() in SUFFIXES)


def folders_of_images(root: Path, at_most: int) -> list[str]:
    """Names of folders below `root` that images lie in, the first that are met."""
    found: dict[str, None] = {}
    for path in walk(root):
        if path.suffix.lower() in SUFFIXES and path.parent != root:
            found[str(path.parent.relative_to(root))] = None
            if len(found) == at_most:
                break
    return list(found)


def walk(folder: Path) -> Iterator[Path]:
    """All below a folder that is no folder, through links to folders as timm's readers go, but never in a circle.

    Raises DataError for a folder that may not be read.
    """
    been = set()
    for place, inside, names in os.walk(folder, onerror=_refuse, followlinks=True):
        if (real := os.path.realpath(place)) in been:
            inside.clear()
            continue
        been.add(real)
        yield from (Path(place, name) for name in names)


def _refuse(error: OSError) -> None:
    raise DataError(f"cannot look into the folder {error.filename}: {error.strerror}; make it readable or take it out")


def _read(root: Path, find: FindInClass, class_depth: int) -> Parts:
    folders = _find_part_folders(root, class_depth)
    if not folders:
        return labelled({WHOLE: _read_class_folders(root, find)}, {}, str(root))
    found = {part: _read_class_folders(folder, find) for part, folder in folders.items()}
    return labelled(found, {part: f"{folder.name}/ of the folder" for part, folder in folders.items()}, str(root))


def _find_part_folders(root: Path, class_depth: int) -> dict[str, Path]:
    """The folder of each part, or none if the folders are classes. Raises DataError if they may be either."""
    folders = subfolders(root)
    named = _named_as_parts(root, class_depth)
    if not named:
        return {}
    if others := [folder for folder in folders if folder not in named]:
        raise DataError(
            f"{root} has {_told(named)} beside {_told(others)}: parts and what belongs to none, or classes all of "
            f"them; move {_told(others)} elsewhere, or rename {_told(named)}"
        )
    parts: dict[str, Path] = {}
    for folder in named:
        other = parts.setdefault(str(part_called(folder.name)), folder)
        if other is not folder:
            raise DataError(
                f"{root} has {_told([other, folder])}: one part in two folders, or two classes; put them together, or "
                "rename one"
            )
        if inner := _named_as_parts(folder, class_depth):
            raise DataError(
                f"{folder} has {_told(inner)} with folders inside: parts of {folder}, or classes of {folder.name}/; "
                f"name {folder} as the data, or rename {_told(inner)}"
            )
    return parts


def _named_as_parts(root: Path, class_depth: int) -> list[Path]:
    """Folders with the name of a part and class folders in them. One with a part's name alone may be a class.

    Raises DataError for several of that kind.
    """
    folders = subfolders(root)
    called = [folder for folder in folders if part_called(folder.name)]
    named = [folder for folder in called if depth(folder, class_depth + 1) > class_depth]
    if not named and called and (len(called) > 1 or called == folders):
        raise DataError(
            f"{root} has {_told(called)} without folders inside: parts without classes, or classes of these names; put "
            f"class folders inside, such as {called[0].name}/cat/, or rename {_told(called)}"
        )
    return named


def depth(folder: Path, at_most: int) -> int:
    """How many folders lie in each other below this one, as far as one asks."""
    if not at_most:
        return 0
    return max((1 + depth(inside, at_most - 1) for inside in subfolders(folder)), default=0)


def _told(folders: Sequence[Path]) -> str:
    names = [f"{folder.name}/" for folder in folders[:3]]
    words = [*names, f"{len(folders) - 3} more"] if len(folders) > 3 else names
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _read_class_folders(root: Path, find: FindInClass) -> tuple[list[Path], list[str]]:
    """Paths in sorted order, and the class of each."""
    # A label in split.csv, which a run writes, has to have one reading too.
    found = {class_of(folder.name, f"the class folder {folder}"): find(folder) for folder in subfolders(root)}
    if not any(found.values()):
        raise DataError(f"{root} holds no images in class folders, such as {root / 'cat' / '1.jpg'}")
    if empty := [name for name, paths in found.items() if not paths]:
        raise DataError(f"{root} has class folders without an image: {', '.join(empty)}; fill or remove them")
    return [path for paths in found.values() for path in paths], [name for name, paths in found.items() for _ in paths]
