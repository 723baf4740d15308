"""What is no file of weights is refused in a line that says what it is, wherever weights are taken; no code is run."""

import gzip
import io
import pickle
import struct
import tarfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save, save_file
from torch import nn

import zoo
from zoo.cli import main
from zoo.training.recipe_file import make_recipe
from zoo.training.starting_model import create_model
from zoo.weights.convert import convert
from zoo.weights.foreign_files import WeightFileError, read_weights


class Payload:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def pytorch(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def archive(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as inside:
        for name, content in files.items():
            inside.writestr(name.replace("_", "."), content)
    return file.getvalue()


def numpy(content: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, content)
    return file.getvalue()


def tar(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as inside:
        about = tarfile.TarInfo("weights.pth")
        about.size = len(content)
        inside.addfile(about, io.BytesIO(content))
    return file.getvalue()


def script() -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates it
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
    return file.getvalue()


STATE = {"fc.weight": torch.ones(300, 300), "fc.bias": torch.ones(300)}
KINDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "cut.pth": (lambda: pytorch(STATE)[:5000], "is cut off"),
    "cut_old.pth": (lambda: pytorch(STATE, _use_new_zipfile_serialization=False)[:5000], "is no whole PyTorch file"),
    "cut.safetensors": (lambda: save(STATE)[:5000], "is no whole safetensors file"),
    "empty.pth": (lambda: b"", "is empty"),
    "empty.safetensors": (lambda: b"", "is empty"),
    "text.pth": (lambda: b"these are no weights\n" * 5, "is text"),
    "page.pth": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "page.safetensors": (lambda: b"<html>404</html>", "is a web page"),
    "pointer.safetensors": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
    "module.pth": (lambda: pytorch(nn.Linear(2, 2)), "holds more than weights (torch.nn.modules.linear.Linear)"),
    "evil.pth": (lambda: pytorch({**STATE, "extra": Payload()}), "could run any code"),
    "evil_old.pth": (lambda: pytorch(Payload(), _use_new_zipfile_serialization=False), "could run any code"),
    "evil.pkl": (lambda: pickle.dumps(Payload()), "is a pickle that PyTorch did not write"),
    "list.pth": (lambda: pytorch([1, 2]), "no weights by name, but a list"),
    "tensor.pth": (lambda: pytorch(torch.ones(3)), "no weights by name, but one tensor"),
    "numbers.pth": (lambda: pytorch({"epoch": 3}), "no weights by name, but epoch"),
    "none.pth": (lambda: pytorch({}), "holds nothing"),
    "none.safetensors": (lambda: save({}), "holds nothing"),
    "script.pt": (script, "is a program of TorchScript"),
    "photos.zip": (lambda: archive(a_txt=b"x"), "is an archive of a.txt; unpack it"),
    "a.npz": (lambda: archive(x_npy=numpy(np.zeros(2))), "arrays of NumPy"),
    "a.npy": (lambda: numpy(np.zeros(2)), "array of NumPy"),
    "weights.tar": (lambda: tar(pytorch(STATE)), "is an archive; unpack it"),
    "weights.pth.gz": (lambda: gzip.compress(pytorch(STATE)), "is compressed; unpack it"),
    "network.onnx": (lambda: b"\x08\x07\x12\x07pytorch\x1a\x032.0", "is an ONNX network"),
    "model.ckpt.index": (lambda: bytes(20) + b"tensorflow", "checkpoint of TensorFlow"),
    "weights.h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras"),
    "weights.gguf": (lambda: b"GGUF" + bytes(100), "llama.cpp"),
    "photo.jpg": (lambda: b"\xff\xd8\xff\xe0" + bytes(100), "is a picture"),
    "zeros.bin": (lambda: bytes(1000), "begins with zeros"),
    "noise.pth": (lambda: bytes(range(128, 256)), "PyTorch"),
}
DOORS: dict[str, Callable[[str], Any]] = {
    "warm_start": lambda file: zoo.warm_start(timm.create_model("se_resnet20_cifar"), file),
    "convert": lambda file: convert(file, "timm", "resnet18"),
    "train": lambda file: create_model(
        make_recipe({"model": "se_resnet20_cifar", "data": "digits", "weights": file}), ("0", "1")
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_file_of_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, says = KINDS[name]
    Path(name).write_bytes(content())
    with pytest.raises(WeightFileError) as caught:
        read_weights(name)
    line = str(caught.value)
    assert line.startswith(f"{name} ") and says in line and "\n" not in line and len(line) < 300
    assert "weights_only" not in line and not Path("ran").exists()


def test_what_is_no_file(tmp_path: Path) -> None:
    for path, says in ((tmp_path, "is a folder; give a file in it"), (tmp_path / "a.pth", "is not there")):
        with pytest.raises(WeightFileError, match=says):
            read_weights(path)


@pytest.mark.parametrize("door", DOORS)
def test_it_is_said_at_every_door(
    door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cut.pth", "evil.pkl", "page.safetensors"):
        content, says = KINDS[name]
        Path(name).write_bytes(content())
        with pytest.raises(WeightFileError) as caught:
            DOORS[door](name)
        assert says in str(caught.value) and not Path("ran").exists()
    assert not capfd.readouterr().err


def test_the_command_line_says_it_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.pth").write_bytes(KINDS["page.pth"][0]())
    finetune = ["finetune", "se_resnet20_cifar", "digits", "--weights", "page.pth", "--epochs", "1", "--out", "run"]
    train = ["train", "quickstart", "--set", "weights=page.pth", "--out", "run"]
    assert main(finetune) == main(train) == 2 and not Path("run").exists()
    says = "zoo: page.pth is a web page, not the file that it links to; download that\n"
    assert capsys.readouterr().err == 2 * says
    assert main(["predict", "page.pth", "page.pth"]) == 2
    assert "page.pth is a file, and weights alone do not say of which network" in capsys.readouterr().err


def test_averaged_weights_come_first_and_arguments_are_left(tmp_path: Path) -> None:
    """Of timm's checkpoints, that hold both and an argparse.Namespace."""
    content = {"args": Namespace(lr=1), "state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}
    torch.save(content, tmp_path / "checkpoint.pth.tar")
    assert read_weights(tmp_path / "checkpoint.pth.tar")["a"] == 1


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(zoo.WarmStartError, match="fit neither se_resnet20_cifar nor its plain backbone"):
        DOORS["warm_start"](str(tmp_path / "resnet18.safetensors"))


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("resnet18", {"block_args": {"attn_layer": "cbam"}}, r'\(CbamModule\).*create_model\("cbam_resnet18"\)'),
        ("resnet18", {"block_args": {"attn_layer": "eca"}}, r'\(EcaModule\).*create_model\("eca_resnet18"\)'),
        ("seresnet18", {}, r'\(SEModule\).*create_model\("se_resnet50"\)'),
        ("resnet18", {}, "ResNet has no gates to start from plain weights"),
    ],
)
def test_timms_own_gates_are_called_so(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(zoo.WarmStartError, match=says):
        zoo.warm_start(timm.create_model(name, **options), {})


@pytest.mark.parametrize("length", [0x280, 0x4B50], ids=["pickle", "archive"])
def test_a_header_whose_length_looks_like_another_file(length: int, tmp_path: Path) -> None:
    """A safetensors file begins with the length of its header: 0x280 is how a pickle begins, 0x4B50 is "PK"."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", length) + header.ljust(length) + struct.pack("<f", 2.0))
    assert read_weights(tmp_path / "w.safetensors")["w"].tolist() == [2.0]
