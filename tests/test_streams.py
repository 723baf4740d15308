"""Streams, with 1, 2 and 3 loader processes in 1 and 2 training processes: whole epochs out of uneven shards."""

import io
import itertools
import json
import os
import signal
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from shapes import TINY
from test_distributed import launch
from test_resume import same, when_there

from zoo.data import DataError, Splitting, open_data, open_held_out
from zoo.data.kinds import IMAGES, Way
from zoo.data.order import Share
from zoo.data.streams import StreamBatches
from zoo.errors import Interrupted
from zoo.training.start import resume, train

SHARDS = (9, 3, 12, 5, 8, 4, 11)
"""Images in each file of the training part: 52 or 13 updates of 4, which two loader processes share unevenly."""
HELD_OUT = (5, 2, 4)
KINDS, WORKERS = ("wds", "hfids"), (1, 2, 3)
SHARE = Share(sum(SHARDS), 4)
CONFIG = {
    "input_size": (3, 16, 16),
    "interpolation": "bilinear",
    "mean": (0.0,) * 3,
    "std": (1.0,) * 3,
    "crop_pct": 1.0,
}

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore::ResourceWarning",
    "ignore:This DataLoader will create 3 worker processes",  # on two cores
)


def png(number: int) -> bytes:
    """An image whose red says which it is; its class is whether that is odd."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shards_of(counts: tuple[int, ...]) -> list[range]:
    ends = list(itertools.accumulate(counts))
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]


def write_wds(folder: Path, parts: dict[str, tuple[int, ...]]) -> str:
    folder.mkdir()
    splits = {}
    for part, counts in parts.items():
        names = [f"{part}-{k}.tar" for k in range(len(counts))]
        for name, numbers in zip(names, shards_of(counts), strict=True):
            with tarfile.open(folder / name, "w") as shard:
                for k in numbers:
                    for suffix, content in (("png", png(k)), ("cls", str(k % 2).encode())):
                        entry = tarfile.TarInfo(f"{k:03d}.{suffix}")
                        entry.size = len(content)
                        shard.addfile(entry, io.BytesIO(content))
        splits[part] = {"name": part, "filenames": names, "shard_lengths": counts, "num_samples": sum(counts)}
    (folder / "_info.json").write_text(json.dumps({"splits": splits}))
    return f"wds/{folder}"


def write_hfids(folder: Path, parts: dict[str, tuple[int, ...]], odd: Mapping[int, tuple[bytes, int]] = {}) -> str:
    """`odd` has other contents and labels than usual, by image."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (folder / "data").mkdir(parents=True)
    for part, counts in parts.items():
        for number, images in enumerate(shards_of(counts)):
            contents, labels = zip(*(odd.get(k, (png(k), k % 2)) for k in images), strict=True)
            rows = {"image": [{"bytes": content, "path": None} for content in contents], "label": labels}
            pq.write_table(pa.table(rows), folder / "data" / f"{part}-{number:05d}-of-{len(counts):05d}.parquet")
    sizes = "".join(f"  - name: {part}\n    num_examples: {sum(counts)}\n" for part, counts in parts.items())
    (folder / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: image\n    dtype: image\n  - name: label\n    dtype:\n"
        f"      class_label:\n        names:\n          '0': even\n          '1': odd\n  splits:\n{sizes}---\n"
    )
    return f"hfids/{folder}@{folder.parent / 'cache'}"


WRITE = {"wds": write_wds, "hfids": write_hfids}


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pytest.importorskip("webdataset")
    pytest.importorskip("datasets")
    root = tmp_path_factory.mktemp("streams")
    return {kind: write(root / kind, {"train": SHARDS, "validation": HELD_OUT}) for kind, write in WRITE.items()}


def as_array(image: Any) -> np.ndarray:
    return np.array(image).transpose(2, 0, 1)


def seen(batches: Iterator[Any]) -> list[list[int]]:
    """Which images each micro-batch has; their labels are held against them."""
    found = []
    for images, labels in batches:
        numbers = images[:, 0, 0, 0].long()
        assert torch.equal(numbers % 2, labels.long()), "each image has its own label"
        found.append(numbers.tolist())
    return found


@pytest.fixture(autouse=True)
def no_rest() -> None:
    no_rest_at_the_end()


def no_rest_at_the_end() -> None:
    """The library sleeps for seconds when it has read several files in threads."""
    datasets = pytest.importorskip("datasets")
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0


def look(name: str, workers: int, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """What two epochs give, what is left of the second from its third update on, and what is measured on."""
    data = open_data(name, Splitting(num_classes=2))
    share = replace(SHARE, rank=rank, world=world)
    assert len(data.train) == share.images, "of the whole set, on however many processes"
    batches = StreamBatches(data.train, share, [as_array] * 2, workers)
    way = Way(torch.device("cpu"), 3, workers, rank=rank, world=world)
    held_out = IMAGES.held_out(data.val, dict(CONFIG), (3, 16, 16), way)
    return {
        "epochs": [seen(batches.epoch(epoch)) for epoch in range(2)],
        "rest": seen(batches.epoch(1, start=2)),
        "measured": [sorted(itertools.chain(*seen((255 * x, y) for x, y in held_out))) for _ in range(2)],
    }


def check(looks: list[dict[str, Any]]) -> None:
    """What the processes of one run have seen, together."""
    world = len(looks)
    for of_process in looks:
        for epoch in of_process["epochs"]:
            assert [len(batch) for batch in epoch] == [4 // world] * 13
        assert of_process["epochs"][0] != of_process["epochs"][1]
        assert of_process["rest"] == of_process["epochs"][1][2:], "resumed in the middle"
    for k in range(2):
        everything = Counter(image for of_process in looks for image in of_process["measured"][k])
        assert everything == Counter(range(sum(HELD_OUT))), "each held-out image once"
    trained_on = {image for of_process in looks for epoch in of_process["epochs"] for batch in epoch for image in batch}
    assert len(trained_on) > sum(SHARDS) / 2


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_process(kind: str, workers: int, streams: dict[str, str]) -> None:
    check([look(streams[kind], workers)])


@pytest.mark.every
def test_two_processes(streams: dict[str, str], tmp_path: Path) -> None:
    """And a run on two processes, three loader processes each, that was stopped in the middle and gone on with."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    with launch(*torchrun, __file__, tmp_path, json.dumps(streams)) as process:
        output, _ = process.communicate(timeout=220)
    assert process.returncode == 0, output
    for kind, workers in itertools.product(KINDS, WORKERS):
        check([json.loads((tmp_path / f"{kind}-{workers}-{rank}.json").read_text()) for rank in range(2)])
    assert same(tmp_path / "whole", tmp_path / "stopped")


def train_and_stop(folder: Path, name: str, leads: bool) -> None:
    """The same run twice, the second time stopped after a few updates and gone on with."""
    recipe = replace(TINY, data=name, num_classes=2, epochs=2, batch_size=8, workers=3, checkpoint_minutes=0.0)
    assert train(recipe, folder / "whole").score.n == sum(HELD_OUT)
    if leads:
        when_there(folder / "stopped", 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted):
        train(recipe, folder / "stopped")
    torch.distributed.destroy_process_group()
    resume(folder / "stopped")


@pytest.mark.parametrize(
    ("kind", "world", "workers", "says"),
    [
        ("wds", 1, 8, "is in 7 files, too few for 8 loader processes each; set workers = 7, or cut it into more"),
        ("wds", 2, 4, "is in 7 files for 2 processes, too few for 4 loader processes each; set workers = 3, or cut"),
        ("wds", 8, 1, "is in 7 files for 8 processes, too few for 1 loader processes each; cut it into more"),
        ("hfids", 1, 8, "is in 7 files, too few for 8 loader processes each; set workers = 7"),
        ("hfids", 7, 2, "is in 7 files for 7 processes, too few for 2 loader processes each; set workers = 1"),
    ],
)
def test_too_few_shards(kind: str, world: int, workers: int, says: str, streams: dict[str, str]) -> None:
    train = open_data(streams[kind], Splitting(num_classes=2)).train
    with pytest.raises(DataError, match=says):
        StreamBatches(train, Share(52, 2 * world, world=world), [as_array], workers)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_is_none_is_one_line(kind: str, tmp_path: Path) -> None:
    name = WRITE[kind](tmp_path / kind, {"train": (4, 4), "validation": (2,)})
    data = open_data(name, Splitting(num_classes=2))
    data.train.classes = 1
    with pytest.raises(DataError, match=r"train of .* has the label 1, which is none of its 1 classes") as error:
        list(StreamBatches(data.train, Share(8, 4), [as_array], workers=1).epoch(0))
    assert "\n" not in str(error.value)


def test_an_image_that_cannot_be_read_is_not_left_out(tmp_path: Path) -> None:
    """Nor is the rest of a shard that is cut off."""
    name = write_wds(tmp_path / "wds", {"train": (4, 4), "validation": (3,)})
    data = open_data(name, Splitting(num_classes=2))
    shard = tmp_path / "wds" / "validation-0.tar"
    whole = shard.read_bytes()
    for damaged in (whole.replace(b"IHDR", b"IHDx", 1), whole[:1700]):
        shard.write_bytes(damaged)
        with pytest.raises(DataError, match=r"cannot read an image of validation of .*: .*; repair it or take it out"):
            list(data.val)
    shard.write_bytes(whole)
    assert len(list(data.val)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_is_that_of_the_seed(kind: str, streams: dict[str, str]) -> None:
    train = open_data(streams[kind], Splitting(num_classes=2)).train

    def order(seed: int) -> list[float]:
        batches = StreamBatches(train, replace(SHARE, seed=seed), [as_array], workers=1).epoch(0)
        return torch.cat([images[:, 0, 0, 0] for images, _ in batches]).tolist()

    assert order(0) == order(0) != order(1)


def test_images_of_the_hub_are_read_as_all_are(tmp_path: Path) -> None:
    """By row: what cannot be read is named or skipped, never replaced by its neighbour, and no label is -1."""
    pytest.importorskip("datasets")
    odd = {3: (b"no image", 1), 4: (png(4), -1)}
    name = write_hfids(tmp_path / "set", {"train": (6, 6), "test": (2,)}, odd).replace("hfids", "hfds")
    train = open_data(name).train
    assert [train[k][0].getpixel((0, 0))[0] for k in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match=r"cannot read the image of row 3 of train of .*: it is no image that Pillow"):
        train[3]
    with pytest.raises(DataError, match=r"row 4 of train of .* has the label -1, which is none of its 2 classes"):
        train[4]
    with pytest.raises(DataError, match="row 4 of train of"):
        _ = train.labels
    assert len(open_held_out(name)[0]) == 2
    del odd[4]
    name = write_hfids(tmp_path / "mended", {"train": (6, 6), "test": (2,)}, odd).replace("hfids", "hfds")
    data = open_data(name, Splitting(skip_bad=True))
    assert (len(data.train), len(data.skipped)) == (11, 1) and data.skipped[0].startswith("row 3 of train of hfds/")


if __name__ == "__main__":
    train_and_stop(Path(sys.argv[1]), json.loads(sys.argv[2])["wds"], leads=os.environ["RANK"] == "0")
    no_rest_at_the_end()
    torch.distributed.init_process_group("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    for kind, workers in itertools.product(KINDS, WORKERS):
        found = look(json.loads(sys.argv[2])[kind], workers, rank, world)
        Path(sys.argv[1], f"{kind}-{workers}-{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()
