"""Data by one string: each kind of source, its split, and what a mistake says."""

import csv
import io
import json
import os
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image
from shapes import TINY, draw_shapes

from zoo.cli import main
from zoo.data import DataError, Splitting, open_data, open_held_out
from zoo.training.start import train


def test_a_folder_without_split_is_split_the_same_way_each_time(tmp_path: Path) -> None:
    root = draw_shapes(tmp_path / "data", parts=["."], count=20)
    quarter = Splitting(val_fraction=0.25)
    data = open_data(str(root), quarter)
    assert (len(data.train), len(data.val), data.classes) == (30, 10, ("cross", "disc"))
    assert sum(data.val.labels) == 5, "stratified"
    assert not set(data.train.images) & set(data.val.images)
    assert open_data(str(root), quarter).val.images == data.val.images
    assert open_data(str(root), replace(quarter, seed=1)).val.images != data.val.images
    (root / "disc" / "grün und schön.PNG").write_bytes((root / "disc" / "0.png").read_bytes())
    assert len(open_data(str(root)).train) + len(open_data(str(root)).val) == 41


@pytest.mark.parametrize("sizes", [(100, 100, 2), (50, 50, 50, 2), (40, 40, 3, 3)])
def test_every_class_has_a_held_out_image(sizes: tuple[int, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", X=np.zeros((sum(sizes), 2, 2, 2)), y=np.repeat(np.arange(len(sizes)), sizes))
    for seed in range(3):
        data = open_data(str(tmp_path / "set.npz"), Splitting(seed=seed))
        held_out, rest = Counter(data.val.labels), Counter(data.train.labels)
        assert set(held_out) == set(rest) == set(range(len(sizes)))
        assert [held_out[k] + rest[k] for k in range(len(sizes))] == [*sizes]
        assert len(data.val) <= round(0.2 * sum(sizes)) + len(sizes) - 2


def test_the_split_is_written_down_and_is_data_by_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = draw_shapes(tmp_path / "data", parts=["."], count=20)
    run = train(replace(TINY, data=str(root), epochs=1, warmup_epochs=0.0), tmp_path / "run")
    table = run.directory / "split.csv"
    data, again = open_data(str(root)), open_data(str(table))
    assert [path.resolve() for path in again.train.images] == [path.resolve() for path in data.train.images]
    assert (again.val.labels, again.classes) == (data.val.labels, data.classes)
    capfd.readouterr()
    assert main(["eval", str(run.directory), str(table), "--workers", "0"]) == 0
    assert f"top-1 {run.score.top1:.2f} %" in capfd.readouterr().out


@pytest.mark.parametrize("keep_test", [False, True])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("train", "val"), {False: (48, 48, None, "val/"), True: (48, 48, None, "val/")}),
        (("Training", "test"), {False: (48, 48, None, "test/"), True: (38, 10, 48, "test/")}),
        (("train", "validation", "test"), {False: (48, 48, 48, "test/"), True: (48, 48, 48, "test/")}),
        (("train",), {False: (38, 10, None, "stratified 10 of 48"), True: (38, 10, None, "stratified 10 of 48")}),
    ],
)
def test_parts_of_a_folder(
    parts: tuple[str, ...], expected: dict[bool, tuple[object, ...]], keep_test: bool, tmp_path: Path
) -> None:
    data = open_data(str(draw_shapes(tmp_path, parts)), Splitting(keep_test=keep_test))
    train_images, val_images, test_images, words = expected[keep_test]
    assert (len(data.train), len(data.val), data.test and len(data.test)) == (train_images, val_images, test_images)
    assert str(words) in data.split


def write_table(path: Path, rows: list[tuple[str, ...]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table(delimiter: str, tmp_path: Path) -> None:
    draw_shapes(tmp_path / "bilder, grün", parts=["."], count=4)
    rows = [(f"bilder, grün/{name}/{k}.png", name, part) for name in ("disc", "cross") for k, part in enumerate("aabb")]
    parts = {"a": "Train", "b": "val"}
    table = write_table(
        tmp_path / "table.csv",
        [("File", "Class", "Split"), *((path, name, parts[part]) for path, name, part in rows)],
        delimiter,
    )
    data = open_data(str(table))
    assert data.classes == ("cross", "disc") and data.train.labels == [1, 1, 0, 0] and len(data.val) == 4
    assert data.train[0][0].size == (24, 24)
    named = write_table(tmp_path / "named.csv", [("where", "what"), *((path, name) for path, name, _ in rows)])
    assert len(open_data(f"{named}#where,what").train) == 6
    counted = [(path, str(9 + (name == "disc"))) for path, name, _ in rows]
    numbers = write_table(tmp_path / "numbers.csv", [("path", "label"), *counted])
    assert open_data(str(numbers)).classes == ("9", "10"), "numbers are sorted as numbers"


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [("path", "label"), ("gone.png", "a"), ("lost.png", "b")],
            r"names .*gone.png and 1 more, which are not",
        ),
        ([("path", "label"), ("1.png", "a"), ("", "b")], "line 3: a path and a label are wanted"),
        ([("path", "label", "split"), ("1.png", "a", "tran")], "line 2: unknown split 'tran'; choices are train, "),
        ([("where", "label"), ("1.png", "a")], "has the columns where, label; say which .* by #IMAGE,LABEL"),
        ([("path", "label"), ("1.png", "a")], "one class only, 'a'"),
        ([("path", "label")], "has no rows"),
    ],
)
def test_a_wrong_table(rows: list[tuple[str, ...]], says: str, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    with pytest.raises(DataError, match=says):
        open_data(str(write_table(tmp_path / "table.csv", rows)))


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, described: bool) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder.mkdir()
    names = {"info": {"features": {"fine_label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}}}
    for part, count in (("train-00000-of-00002", 8), ("train-00001-of-00002", 4), ("test-00000-of-00001", 6)):
        images = pa.array([{"bytes": png(k), "path": f"{k}.png"} for k in range(count)])
        table = pa.table({"img": images, "fine_label": [k % 2 for k in range(count)], "coarse": [0] * count})
        if described:
            table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
        pq.write_table(table, folder / f"{part}.parquet")
    return folder


def test_parquet_files(tmp_path: Path) -> None:
    data = open_data(str(write_parquet(tmp_path / "named", described=True)))
    assert (data.classes, len(data.train), len(data.val), data.test) == (("ant", "bee"), 12, 6, None)
    image, label = data.train[3]
    assert (image.getpixel((0, 0)), label) == ((3, 0, 0), 1)
    assert data.split == "test files of the folder"
    plain = str(write_parquet(tmp_path / "plain", described=False))
    assert open_data(plain).classes == ("0", "1")
    with pytest.raises(DataError, match="one class only"):
        open_data(f"{plain}#coarse")
    with pytest.raises(DataError, match="columns img, fine_label, coarse; say which"):
        open_data(f"{plain}#label")


@pytest.mark.every
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_shards_train_and_resume_where_they_were(tmp_path: Path) -> None:
    """WebDataset through timm's reader: two shards of 16 images, one of 8 to evaluate on."""
    pytest.importorskip("webdataset")
    lengths = {"train-0.tar": 16, "train-1.tar": 16, "val-0.tar": 8}
    for name, count in lengths.items():
        with tarfile.open(tmp_path / name, "w") as shard:
            for k in range(count):
                for suffix, content in (("png", png(255 * (k % 2))), ("cls", str(k % 2).encode())):
                    entry = tarfile.TarInfo(f"{name[:-4]}-{k}.{suffix}")
                    entry.size = len(content)
                    shard.addfile(entry, io.BytesIO(content))
    splits = {}
    for split, names in (("train", ["train-0.tar", "train-1.tar"]), ("validation", ["val-0.tar"])):
        shard_lengths = [lengths[name] for name in names]
        facts = {"num_samples": sum(shard_lengths), "filenames": names, "shard_lengths": shard_lengths, "name": split}
        splits[split] = facts
    (tmp_path / "_info.json").write_text(json.dumps({"splits": splits}))

    data = open_data(f"wds/{tmp_path}", Splitting(num_classes=2))
    assert (len(data.train), data.classes, data.split[:10]) == (32, ("0", "1"), "validation")
    recipe = replace(TINY, data=f"wds/{tmp_path}", num_classes=2, epochs=4, batch_size=8, checkpoint_minutes=0.0)
    run = train(recipe, tmp_path / "run")
    assert run.score.n == 8 and run.score.top1 == 100
    with pytest.raises(DataError, match="does not say its classes; set num_classes"):
        open_data(f"wds/{tmp_path}")

    from test_resume import same, when_there

    from zoo.errors import Interrupted
    from zoo.training.start import resume

    when_there(tmp_path / "again", 6, lambda: os.kill(os.getpid(), 15))
    with pytest.raises(Interrupted):
        train(recipe, tmp_path / "again")
    resume(tmp_path / "again")
    assert same(tmp_path / "run", tmp_path / "again")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_data_sets_of_the_hub_and_of_torchvision(tmp_path: Path) -> None:
    """Read by timm, from local files: nothing is downloaded."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder = draw_shapes(tmp_path / "shapes", ("train", "test"), count=10)
    data = open_data(f"hfds/{folder}@{tmp_path / 'cache'}", Splitting(keep_test=True))
    assert (data.classes, len(data.train), len(data.val), len(data.test or ())) == (("cross", "disc"), 16, 4, 20)
    recipe = replace(TINY, data=f"hfds/{folder}@{tmp_path / 'cache'}", epochs=1, warmup_epochs=0.0)
    run = train(recipe, tmp_path / "run")
    assert run.score.n == 20
    with pytest.raises(DataError, match="torch/cifar10 takes the folder"):
        open_data("torch/cifar10")
    with pytest.raises(DataError, match="cannot open torch/cifar10@"):
        open_data(f"torch/cifar10@{tmp_path}")


def test_bad_images_are_skipped_if_that_is_wanted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = draw_shapes(tmp_path / "data", count=10)
    for part, name in (("train", "3.png"), ("val", "4.png")):
        (root / part / "disc" / name).write_bytes(b"\x89PNG broken")
    recipe = replace(TINY, data=str(root), epochs=1, warmup_epochs=0.0, batch_size=10)
    with pytest.raises(DataError, match=r"cannot read the image .*png: it is no image"):
        train(recipe, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    run = train(replace(recipe, on_bad_image="skip"), tmp_path / "run")
    assert run.score.n == 19 and "skipped 2 images that cannot be read" in capfd.readouterr().err
    table = (run.directory / "split.csv").read_text()
    assert table.count('"","skipped"') == 2 and "3.png" in table
    again = open_data(str(run.directory / "split.csv"))
    assert (len(again.train), len(again.val), again.classes) == (19, 19, ("cross", "disc")), "it is data, too"
    for image in (root / "val" / "disc").iterdir():
        image.write_bytes(b"")
    with pytest.raises(DataError, match="no image of disc can be read in val"):
        train(replace(recipe, on_bad_image="skip"), tmp_path / "none")


@pytest.mark.skipif(not (SHARED / "data" / "cifar100").is_dir(), reason="CIFAR-100 is not here")
def test_cifar100_as_the_hub_has_it() -> None:
    pytest.importorskip("pyarrow")
    images, classes, words = open_held_out(str(SHARED / "data" / "cifar100"))
    assert (len(images), len(classes), classes[0], words) == (10_000, 100, "apple", "test files of the folder")
    assert torch.tensor(images.labels).bincount().tolist() == [100] * 100
    assert images[0][0].size == (32, 32)
