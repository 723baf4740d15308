"""Volumes with labels, and how one is read: arrays, and folders of frames.

A volume is uint8 (D, H, W, C): MRI and CT scans and voxels have one channel, the frames of a clip have three. Networks
take volumes of one size, so each is brought to it once, and the whole set lives on the device as one tensor.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.images import EXTENSIONS, DataError, Images, read_image, require_file

LARGEST = 2**33
"""Bytes of voxels that a part may take on the device."""
MOST_CHANNELS = 4
IMAGE_KEYS, LABEL_KEYS = ("images", "volumes", "x"), ("labels", "y")
"""What the arrays of an .npz file are called, with the part's name in front or behind: train_images, X_train."""

VolumeSource = Path | np.ndarray


class Volumes(Images):
    """Volumes (.npy files, folders of frames, or arrays) with class indices."""

    def read(self, image: Any) -> np.ndarray:
        """One of them as uint8 (D, H, W, C). Raises DataError with its name."""
        return read_volume(image)

    def stack(self, size: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """All of them in `size` (C, D, H, W) as uint8 (N, D, H, W, C), and their class indices (N,).

        Raises DataError if one cannot be read, or if together they are larger than LARGEST.
        """
        if (needed := int(np.prod(size)) * len(self)) > LARGEST:
            raise DataError(
                f"{len(self)} volumes of {'x'.join(map(str, size))} take {needed / 2**30:.1f} GiB and "
                f"{LARGEST / 2**30:.0f} GiB at most live on the device; lower image_size or take fewer"
            )
        whole = torch.empty(len(self), *size[1:], size[0], dtype=torch.uint8)
        for row, image in zip(whole, self.images, strict=True):
            row.copy_(fit(read_volume(image, frames=size[1]), size))
        return whole.to(device), torch.tensor(self.labels, device=device)


def is_volume(source: object) -> bool:
    """Whether it is read as a volume: an array, an .npy file or a folder of frames."""
    return isinstance(source, np.ndarray) or (
        isinstance(source, Path) and (source.suffix.lower() == ".npy" or source.is_dir())
    )


def read_volume(source: VolumeSource, frames: int = 0) -> np.ndarray:
    """A volume as uint8 (D, H, W, C). Of a folder of frames `frames` evenly spaced ones, or all with 0.

    Raises DataError with the volume's name.
    """
    if isinstance(source, np.ndarray):
        return _checked(source, "a volume in memory")
    if source.is_dir():
        return _read_frames(source, frames)
    try:
        require_file(source)
        array = np.load(source, allow_pickle=False)
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise DataError(f"cannot read the volume {source}: {error}; repair it or take it out") from None
    return _checked(array, str(source))


def _checked(array: Any, name: str) -> np.ndarray:
    """uint8 (D, H, W, C) from an array (D, H, W) or (D, H, W, C) of bytes, of booleans or of packed bits.

    Bytes of n x n x n/8 are a cube of bits, packed along its last axis as np.packbits does, which are no size of their
    own in any data set that we know.
    """
    shape = getattr(array, "shape", ())
    if len(shape) not in (3, 4) or 0 in shape or (len(shape) == 4 and shape[3] > MOST_CHANNELS):
        said = "x".join(map(str, shape)) if shape else type(array).__name__
        raise DataError(f"the volume {name} is {said}; an array of (D, H, W) or (D, H, W, C) with C <= 4 is wanted")
    if array.dtype == np.uint8 and len(shape) == 3 and shape[0] == shape[1] == 8 * shape[2]:
        array = np.unpackbits(array, axis=-1).view(bool)
    if array.dtype == bool:
        array = array * np.uint8(255)
    if array.dtype != np.uint8:
        raise DataError(
            f"the volume {name} holds {array.dtype}; scale its values to 0..255 and save it as uint8, "
            "for only you know what range matters"
        )
    return array if array.ndim == 4 else array[..., None]


def _read_frames(folder: Path, frames: int) -> np.ndarray:
    files = sorted((path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS), key=_in_order)
    if not files:
        raise DataError(f"the folder {folder} holds no frames; images such as {folder / '001.jpg'} are wanted")
    if frames:
        files = [files[place] for place in np.linspace(0, len(files) - 1, frames).round().astype(int)]
    read = {file: np.asarray(read_image(file)) for file in dict.fromkeys(files)}
    first = read[files[0]].shape
    if other := next((file for file, frame in read.items() if frame.shape != first), None):
        raise DataError(f"the frames of {folder} differ in size: {other.name} from {files[0].name}")
    return np.stack([read[file] for file in files])


def _in_order(path: Path) -> list[tuple[int, str]]:
    """2.jpg before 10.jpg."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", path.name)]


def fit(volume: np.ndarray, size: tuple[int, ...]) -> Tensor:
    """A volume (D, H, W, C) as uint8 (D', H', W', C') for `size` (C', D', H', W').

    Each new voxel is the mean of the old ones that it covers, at least in part; one that is smaller than them repeats
    one. Grey becomes colour by repetition, and colour grey by the mean.
    """
    x = torch.from_numpy(np.ascontiguousarray(volume)).movedim(-1, 0)
    if x.shape[1:] != size[1:]:
        x = F.adaptive_avg_pool3d(x[None].float(), (size[1], size[2], size[3]))[0].round_().byte()
    if size[0] == 1 < len(x):
        x = x.float().mean(0, keepdim=True).round_().byte()
    if len(x) not in (1, size[0]):
        raise DataError(f"volumes of {len(x)} channels do not fit a network of {size[0]}")
    return x.expand(size[0], -1, -1, -1).movedim(0, -1)


def read_npz(path: Path) -> tuple[dict[str, tuple[list[np.ndarray], list[Any]]], tuple[str, ...]]:
    """Volumes and labels of each part by the part's name in the file ("" if it has none), and class names if it has.

    Labels are as they lie there. Raises DataError.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # what a damaged archive raises depends on where it is damaged
        raise DataError(f"cannot read {path}: {error}; a file of np.savez is wanted") from None
    names = tuple(map(str, arrays.pop("classes", ())))
    found: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        words = key.lower().split("_")
        for kind, known in (("volumes", IMAGE_KEYS), ("labels", LABEL_KEYS)):
            if here := [word for word in words if word in known]:
                words.remove(here[0])
                pair = found.setdefault("_".join(words), {})
                if kind in pair:
                    raise DataError(f"{path} has two arrays of {kind} of {'_'.join(words) or 'the whole'}; drop one")
                pair[kind] = array
                break
    parts = {}
    for part, pair in found.items():
        if len(pair) < 2:
            raise DataError(f"{path} has {' and '.join(pair)} of {part or 'the whole'} alone; {_WANTED}")
        volumes, labels = pair["volumes"], pair["labels"]
        if labels.shape not in (volumes.shape[:1], (*volumes.shape[:1], 1)) or not labels.shape:
            raise DataError(
                f"{path} has {volumes.shape[0] if volumes.shape else 'no'} volumes and labels of "
                f"{'x'.join(map(str, labels.shape)) or 'no shape'} in {part or 'the whole'}; a class a volume is wanted"
            )
        parts[part] = list(volumes), labels.reshape(-1).tolist()
    if not parts:
        raise DataError(f"{path} holds the arrays {', '.join(arrays) or 'none'}; {_WANTED}")
    return parts, names


_WANTED = "train_images, train_labels, test_images, test_labels, or X_train, y_train, are wanted"


def find_volumes(paths: Iterable[str | Path]) -> list[Path]:
    """The .npy files and folders of frames that are named or lie below the folders named. Raises DataError."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [path, *sorted(path.rglob("*"))]
            clips = {file.parent for file in inside if file.suffix.lower() in EXTENSIONS}
            found += [file for file in inside if file in clips or file.suffix.lower() == ".npy"]
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"there is no file or folder {path}")
    return found
