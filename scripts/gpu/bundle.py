"""A folder of state as a few files of limited size, and back: for machines that hand only so much over."""

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from zoo.files import write_whole
from zoo.training.checkpoint import checkpoints

MIB = 2**20


def pack(state: Path, folder: Path, piece_mib: float, total_mib: float) -> list[str]:
    """Write `state` as `folder`/state.000, .001 ..., each of at most `piece_mib`; returns the paths left out.

    What comes first if all is more than `total_mib` (0 is no limit): tables and rounded weights, then the newest
    checkpoints of unfinished runs, then the weights of finished ones. A run that was left out begins anew, unless it is
    finished. Older checkpoints, and those of finished runs, are never taken.
    """
    left, packed, out = total_mib * MIB or float("inf"), io.BytesIO(), []
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path in sorted(_wanted(state), key=lambda path: (_rank(path), path.stat().st_size, path)):
            if (size := path.stat().st_size + 2048) > left - 10240:  # heads, and the archive's last block
                out.append(str(path.relative_to(state)))
                continue
            left -= size
            archive.add(path, str(path.relative_to(state)))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("state.[0-9]*"):
        old.unlink()
    content, piece = packed.getbuffer(), int(piece_mib * MIB)
    for number, start in enumerate(range(0, len(content), piece)):
        part = content[start : start + piece]
        write_whole(folder / f"state.{number:03d}", lambda path, part=part: path.write_bytes(part))
    return out


def unpack(folder: Path, state: Path) -> bool:
    """Make `state` of what `pack` wrote; an existing `state` is newer and stays. Returns whether anything was there."""
    pieces = sorted(folder.glob("state.[0-9]*"))
    if state.exists() or not pieces:
        return False
    with tarfile.open(fileobj=io.BytesIO(b"".join(piece.read_bytes() for piece in pieces))) as archive:
        write_whole(state, lambda beside: archive.extractall(beside, filter="data"))
    return True


def _wanted(state: Path) -> Iterator[Path]:
    for path in state.rglob("*"):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.parent.name == "checkpoint":
            finished = (path.parents[1] / "model" / "config.json").is_file()
            if finished or path != checkpoints(path.parent)[0]:
                continue
        yield path


def _rank(path: Path) -> int:
    return 2 if path.name == "model.safetensors" else int(path.suffix == ".pt")
