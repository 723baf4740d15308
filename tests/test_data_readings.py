"""Data has one reading or is refused: the order of classes, labels that are none, folders that may be parts or
classes."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import TINY
from timm.data import create_dataset
from timm.data.readers.reader_image_folder import find_images_and_targets

from zoo.cli import main
from zoo.data import DataError, Splitting, open_data
from zoo.data.record import Record
from zoo.data.sources import read_parts
from zoo.data.splitting import split_parts

NAMES = ("Motorbikes", "airplanes", "class 10", "class 9", "Zebra", "ant")
TIMMS = ("airplanes", "ant", "class 9", "class 10", "Motorbikes", "Zebra")
AS_BEFORE = ("Motorbikes", "Zebra", "airplanes", "ant", "class 10", "class 9")


def put(root: Path, *folders: str, count: int = 4) -> Path:
    """Folders of `count` images, each of which is another; a folder without any ends in a slash."""
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for number in range(0 if folder.endswith("/") else count):
            Image.new("RGB", (24, 24), (40 * k, 10 * number, 0)).save(root / folder / f"{number}.png")
    return root


def test_classes_are_in_timms_order(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", "val") for name in NAMES))
    data = open_data(str(root))
    assert data.classes == TIMMS == tuple(find_images_and_targets(str(root / "val"))[1])
    theirs = dict(create_dataset("", root, split="val").reader.samples)
    ours = {str(path): label for path, label in zip(data.val.images, data.val.labels, strict=True)}
    assert ours == theirs, "so that timm's validate.py measures the same"
    odd = put(tmp_path / "odd", "²", "B", "b", "10", "9")  # timm's own key fails on a raised 2
    assert open_data(str(odd)).classes == ("9", "10", "B", "b", "²")


def test_an_unsplit_folder_is_split_as_it_was_before(tmp_path: Path) -> None:
    """Whatever order its classes are in: what a model was not trained on stays held out."""
    source = read_parts(str(put(tmp_path / "photos", *NAMES, count=9)))
    assert source.classes == TIMMS and source.by_name
    (now,) = [split_parts(source, Splitting(seed=3)).parts["val"]]
    index = [AS_BEFORE.index(name) for name in source.classes]
    whole = source.parts["whole"]
    old = replace(source, parts={"whole": type(whole)(whole.images, [index[k] for k in whole.labels])})
    before = split_parts(replace(old, classes=AS_BEFORE, by_name=False), Splitting(seed=3)).parts["val"]
    assert now.images == before.images and now.labels != before.labels


def test_a_run_made_before_goes_on_in_its_own_order(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", "val") for name in NAMES))
    new = open_data(str(root))
    old = open_data(str(root), before=Record(from_before=True))
    assert (new.classes, old.classes) == (TIMMS, AS_BEFORE)
    named = [(path, new.classes[label]) for path, label in zip(new.val.images, new.val.labels, strict=True)]
    assert named == [(path, old.classes[label]) for path, label in zip(old.val.images, old.val.labels, strict=True)]
    assert open_data(str(root), before=Record(classes=AS_BEFORE)).classes == AS_BEFORE
    with pytest.raises(DataError, match=r"has the classes airplanes, .*, and this run airplanes, cat"):
        open_data(str(root), before=Record(classes=("airplanes", "cat")))


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (("train/a", "train/b", "cat", "dog"), r"has train/ beside cat/ and dog/: parts and what belongs to none, or"),
        (("train/a", "train/b", "training/a", "training/b"), "has train/ and training/: one part in two folders, or"),
        (("train/a", "train/b", "val/a", "val/b", "dev/a", "dev/b"), "has dev/ and val/: one part in two folders, or"),
        (("train/train/a", "train/train/b"), r"train has train/ with folders inside: parts of .*train, or classes of"),
        (("train/train/a", "train/train/b", "train/val/a"), "train has train/ and val/ with folders inside: parts of"),
        (("train/a", "train/b", "val/a", "val/b", "extra"), r"has train/ and val/ beside extra/: parts and what"),
        (("train/a", "train/b", "val/a", "val/b", "extra/"), r"has train/ and val/ beside extra/: parts and what"),
        (("train", "val"), r"has train/ and val/ without folders inside: parts without classes, or classes of these"),
        (("train/a", "train/b", "train/c/"), "has class folders without an image: c; fill or remove"),
        (("ant", "nan"), "the class folder .*nan: the label is missing, it is 'nan'"),
    ],
)
def test_folders_with_two_readings(
    folders: tuple[str, ...], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = put(tmp_path / "photos", *folders)
    with pytest.raises(DataError, match=says) as error:
        open_data(str(root))
    assert main(["check-data", str(root)]) == 2
    assert str(error.value) in capfd.readouterr().err, "check-data says the same"


@pytest.mark.parametrize(
    ("folders", "parts", "classes"),
    [
        (("train", "tractor", "tulip"), {"train", "val"}, ("tractor", "train", "tulip")),
        (("train/train", "train/tractor", "val/train", "val/tractor"), {"train", "val"}, ("tractor", "train")),
        (("Train/a", "Train/b", "Testing/a", "Testing/b", ".cache/x"), {"train", "test"}, ("a", "b")),
        (("a/deep/er", "b/test"), {"train", "val"}, ("a", "b")),
    ],
)
def test_folders_with_one_reading(
    folders: tuple[str, ...], parts: set[str], classes: tuple[str, ...], tmp_path: Path
) -> None:
    """A class may be called as parts are: CIFAR-100 has trains."""
    data = open_data(str(put(tmp_path / "photos", *folders)))
    assert (set(data.parts), data.classes) == (parts, classes)


def test_links_to_folders_are_followed_but_in_no_circle(tmp_path: Path) -> None:
    root = put(tmp_path / "photos", "a", "b")
    put(tmp_path, "elsewhere", count=3)
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "round").symlink_to(root / "a")
    assert sum(open_data(str(root)).parts[part].labels.count(0) for part in ("train", "val")) == 4 + 3


def test_names_that_are_not_utf8(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """They could not be written down in split.csv, which comes after the first epoch."""
    root = put(tmp_path / "photos", "a", "b")
    os.rename(root / "a" / "0.png", os.fsencode(root / "a") + b"/caf\xe9.png")
    with pytest.raises(DataError, match=r"photos has names that are not UTF-8: b'.*caf.xe9.png'; rename them"):
        open_data(str(root))
    assert main(["check-data", str(root)]) == 2 and "not UTF-8" in capfd.readouterr().err
    os.rename(os.fsencode(root / "a") + b"/caf\xe9.png", root / "a" / "café \n 0.png")
    assert "café \n 0.png" in {
        path.name for path in open_data(str(root)).train.images + open_data(str(root)).val.images
    }


def table(tmp_path: Path, text: str) -> str:
    for name in "abcd":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "table.csv").write_text(text)
    return str(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label\na.png,x\nb.png,nan\n", "table.csv, line 3: the label is missing, it is 'nan'"),
        ("path,label\na.png,x\n\nb.png,NaN\n", "table.csv, line 4: the label is missing, it is 'NaN'"),
        ("path,label\na.png,x\nb.png, \n", "table.csv, line 3: the label is missing, it is ' '"),
        ("path,label\na.png,1\nb.png,-1\n", "line 3: the label -1 is a class, or says that there is none; number"),
        ("path,label\na.png,1.0\nb.png,-1.0\n", "line 3: the label -1.0 is a class, or says"),
        ("path,label,label\na.png,x,y\nb.png,y,x\n", "table.csv has two columns 'label', which may say different"),
        ("path,label,class\na.png,x,y\nb.png,y,x\n", "columns label and class, each of which may hold the label; say"),
        ("path,Label,label\na.png,x,y\nb.png,y,x\n", "columns Label and label, each of which may hold the label"),
        ("path,file,label\na.png,b.png,x\nb.png,a.png,y\n", "columns path and file, each of which may hold the image"),
        (
            "path,label,split,set\na.png,x,train,val\n",
            "columns split and set, each of which may say the part; drop one",
        ),
        (
            "path,label,split\na.png,x,val\nb.png,y,dev\nc.png,x,train\n",
            "has 'val' and 'dev', which may be one part or",
        ),
        ("path,label\na.png,x,oh\nb.png,y\n", "line 2 has more cells than the first line names"),
        ('path,label\na.png,cat\nb.png,"cat "\n', "has the classes 'cat' and 'cat ', which differ in blanks alone"),
    ],
)
def test_labels_of_a_table(text: str, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = table(tmp_path, text)
    with pytest.raises(DataError, match=says):
        open_data(name)
    assert main(["check-data", name]) == 2


def test_a_column_that_is_named_is_taken(tmp_path: Path) -> None:
    name = table(tmp_path, "path,label,class\na.png,x,u\nb.png,y,v\nc.png,x,u\nd.png,y,v\n")
    assert open_data(f"{name}#class").classes == ("u", "v") and open_data(f"{name}#path,label").classes == ("x", "y")


def parquet(folder: Path, labels: dict[str, list[object]], names: list[str] | None, **more: list[object]) -> str:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    folder.mkdir(exist_ok=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    for file, values in labels.items():
        images = pa.array([{"bytes": buffer.getvalue(), "path": "x.png"}] * len(values))
        rows = pa.table({"image": images, "label": values, **more})
        if names:
            said = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
            rows = rows.replace_schema_metadata({"huggingface": json.dumps(said)})
        pq.write_table(rows, folder / f"{file}.parquet")
    return str(folder)


@pytest.mark.parametrize(
    ("labels", "names", "says"),
    [
        ([0, 1, -1], ["ant", "bee"], "train-0.parquet, row 2: the label -1 is none of the 2 classes, 0 to 1"),
        ([0, 1, 2], ["ant", "bee"], "train-0.parquet, row 2: the label 2 is none of the 2 classes, 0 to 1"),
        ([0, None, 1], ["ant", "bee"], "train-0.parquet, row 1: the label is missing, it is None"),
        ([0, 1, -1], None, "train-0.parquet, row 2: the label -1 is a class, or says that there is none"),
        ([0.0, float("nan"), 1.0], None, "train-0.parquet, row 1: the label is missing, it is nan"),
        ([0.5, 1.0], None, "train-0.parquet, row 0: the label 0.5 is no class; the name or the number"),
        ([[0, 1], [1]], None, r"train-0.parquet, row 0: the label \[0, 1\] is no class"),
        ([0, 1], ["ant", "ant"], "has two classes of the name 'ant'; name them apart"),
    ],
)
def test_labels_of_parquet_files(labels: list[object], names: list[str] | None, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        open_data(parquet(tmp_path / "data", {"train-0": labels}, names))


def test_parts_of_parquet_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 'train' and 'training', which may be one part or two; call them alike"):
        open_data(parquet(tmp_path / "1", {"train-0": [0, 1], "training-1": [0, 1]}, None))
    with pytest.raises(DataError, match="has data of 'train', and data of which nothing says the part"):
        open_data(parquet(tmp_path / "2", {"train-0": [0, 1], "more": [0, 1]}, None))
    with pytest.raises(
        DataError, match=r"holds parquet files, and images in .*cat/.*: either may be the data; move the other"
    ):
        put(tmp_path / "3", "cat", "dog")
        open_data(parquet(tmp_path / "3", {"train-0": [0, 1]}, None))
    more = {"filename": ["x"] * 4, "image_path": ["y"] * 4}  # which are no images, as their types say
    floats = open_data(parquet(tmp_path / "4", {"train-0": [0.0, 1.0] * 2, "test-0": [1, 0, 1, 1]}, None, **more))
    assert floats.classes == ("0", "1")


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"y_train": [0.0, float("nan"), 1.0]}, "x.npz, train labels, row 1: the label is missing, it is nan"),
        ({"y_train": [0, 1, -1]}, "x.npz, train labels, row 2: the label -1 is a class, or says that there is none"),
        ({"y_train": [0, 1, -1], "classes": ["a", "b"]}, "train labels, row 2: the label -1 is none of the 2 classes"),
        ({"y_train": [0, 1, 2], "classes": ["a", "b"]}, "train labels, row 2: the label 2 is none of the 2 classes"),
        ({"y_train": ["a", "b", "nan"]}, "train labels, row 2: the label is missing, it is 'nan'"),
        ({"y_train": [0.5, 1, 2]}, "train labels, row 0: the label 0.5 is no class"),
        ({"y_train": [0, 1, 1], "train_labels": [0, 0, 1]}, "has two arrays of labels of train; drop one"),
        ({"y_train": 1}, "has 3 volumes and labels of no shape in train; a class a volume is wanted"),
    ],
)
def test_labels_of_arrays(arrays: dict[str, object], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X_train=np.zeros((3, 4, 4, 4), np.uint8), **arrays)  # pyright: ignore
    with pytest.raises(DataError, match=says):
        open_data(str(tmp_path / "x.npz"))


def test_parts_of_arrays(tmp_path: Path) -> None:
    volumes = np.zeros((4, 4, 4, 4), np.uint8)
    labels = np.array([0.0, 1.0, 0.0, 1.0])
    both = {
        f"{kind}_{part}": value for part in ("train", "training") for kind, value in (("x", volumes), ("y", labels))
    }
    np.savez(tmp_path / "both.npz", **both)
    with pytest.raises(DataError, match="has 'train' and 'training', which may be one part or two"):
        open_data(str(tmp_path / "both.npz"))
    np.savez(tmp_path / "one.npz", x=volumes, y=labels)
    assert open_data(str(tmp_path / "one.npz")).classes == ("0", "1")


def test_a_run_on_a_folder_is_read_by_label_names(tmp_path: Path) -> None:
    """The model's own label_names say which output is which, whatever the order of the data is."""
    from zoo.training.start import train

    root = put(tmp_path / "photos", *(f"{part}/{name}" for part in ("train", "val") for name in NAMES))
    run = train(replace(TINY, data=str(root), epochs=1, warmup_epochs=0.0, batch_size=8), tmp_path / "run")
    config = json.loads((run.directory / "model" / "config.json").read_text())
    assert tuple(config["label_names"]) == TIMMS
    assert open_data(str(run.directory / "split.csv")).classes == TIMMS
