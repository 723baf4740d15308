"""`photos`, `scans`, `frames/FOLDER`: class folders, with or without train/, val/ and test/ above them."""

from collections.abc import Callable
from pathlib import Path

from zoo.data.images import EXTENSIONS, DataError
from zoo.data.sources.parts import WHOLE, Parts, labelled, part_called

FindInClass = Callable[[Path], list[Path]]
"""What a class folder holds: a path for each image or volume."""


def read_folder(root: Path) -> Parts:
    """Image files, or volumes as .npy files, anywhere below each class folder. Raises DataError."""
    return _read(root, _find_files)


def read_clips(root: Path) -> Parts:
    """Class folders of folders, each of which holds the frames of one clip. Raises DataError."""
    return _read(root, _find_folders)


def _find_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in {*EXTENSIONS, ".npy"})


def _find_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _read(root: Path, find: FindInClass) -> Parts:
    folders = _find_part_folders(root)
    if not folders:
        return labelled({WHOLE: _read_class_folders(root, find)}, {}, str(root))
    found = {part: _read_class_folders(folder, find) for part, folder in folders.items()}
    return labelled(found, {part: f"{folder.name}/ of the folder" for part, folder in folders.items()}, str(root))


def _find_part_folders(root: Path) -> dict[str, Path]:
    """The folder of each part, or none if the folders are classes, of which one may be called `test` or `dev`.

    Of two folders for one part the first in sorted order is taken.
    """
    folders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    parts = {part: folder for folder in reversed(folders) if (part := part_called(folder.name))}
    return parts if "train" in parts or len(parts) == len(folders) else {}


def _read_class_folders(root: Path, find: FindInClass) -> tuple[list[Path], list[str]]:
    """Paths in sorted order, and the class of each."""
    found = {
        folder.name: find(folder)
        for folder in sorted(root.iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    }
    if not any(found.values()):
        raise DataError(f"{root} holds no images in class folders, such as {root / 'cat' / '1.jpg'}")
    if empty := [name for name, paths in found.items() if not paths]:
        raise DataError(f"{root} has class folders without an image: {', '.join(empty)}; fill or remove them")
    return [path for paths in found.values() for path in paths], [name for name, paths in found.items() for _ in paths]
