"""`zoo export`: what it writes computes what the network does, says its classes, and runs like any model."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import timm
from PIL import Image
from shapes import draw_shapes
from timm.layers import Conv2dSame
from timm.models import save_for_hf
from torch import nn

from zoo.attention import CBAM
from zoo.cli import main
from zoo.data.images import Images
from zoo.export.check import compare_on
from zoo.export.errors import ExportError
from zoo.export.writing import export
from zoo.inference import Trained, load_trained
from zoo.inference.exported import load_exported

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


class Small(nn.Sequential):
    """A network in the form of timm's: TensorFlow's padding, attention, a head."""

    def __init__(self, side: int = 12) -> None:
        conv = Conv2dSame(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), CBAM(8), Conv2dSame(8, 8, 5, 2, groups=8)
        super().__init__(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
        self.num_classes = 3
        self.pretrained_cfg = {"architecture": "resnet18", "input_size": (3, side, side), "mean": (0.5,) * 3}
        self.pretrained_cfg |= {
            "std": (0.25, 0.2, 0.5),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "center",
        }


def small(side: int = 12) -> Trained:
    network = Small(side).eval()
    return Trained("small", network, {**network.pretrained_cfg}, ("a", "b", "c"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, the folder of a network with attention, and what that was exported to."""
    place = tmp_path_factory.mktemp("exports")
    draw_shapes(place / "photos", parts=("test",), count=6)
    network: Any = timm.create_model("with_attention", backbone="test_resnet", attention="cbam", num_classes=2)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.0)
    network.pretrained_cfg["input_size"] = (3, 24, 24)
    save_for_hf(network, place / "model", model_config={"label_names": ["disc", "cross"]}, safe_serialization=True)
    return place


def test_onnx_from_the_command_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the normalisation inside, on data; then measured and asked like any model."""
    model, file, photos = str(place / "model"), place / "model.onnx", str(place / "photos")
    assert main(["export", model, "--out", str(file), "--preprocessing", "--data", photos]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("free are batch, height, width")
    assert said[1].startswith("run at 3 x 3 x 129 x 146, traced at 2 x 3 x 96 x 96: largest difference ")
    assert ", 0 of 12 answers changed (" in said[2]
    written = onnx.load(file)
    assert written.opset_import[0].version == 20 and not list(place.glob("*.data"))
    metadata = {entry.key: entry.value for entry in written.metadata_props}
    assert json.loads(metadata["class_names"]) == ["disc", "cross"] and json.loads(metadata["input_size"]) == [
        3,
        24,
        24,
    ]
    (taken,) = written.graph.input
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_param or side.dim_value for side in taken.type.tensor_type.shape.dim][-1] == 3
    assert str(Path(timm.__file__).parent).encode() not in file.read_bytes(), "a path of this machine"
    measured = []
    for source in (model, str(file)):
        assert main(["eval", source, photos, "--workers", "0", "--device", "cpu"]) == 0
        assert main(["predict", source, f"{photos}/test/disc/0.png"]) == 0
        measured.append(capsys.readouterr().out)
    assert measured[0] == measured[1]
    assert main(["eval", str(file), photos, "--csv", str(place / "r.csv"), "--image-size", "32", "--workers", "0"]) == 0
    assert (
        f",{sum(p.numel() for p in load_trained(model).network.parameters()) / 1e6:.2f},32,"
        in (place / "r.csv").read_text()
    )


@pytest.mark.every
@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_tensorflows_padding_at_any_size(form: str, tmp_path: Path) -> None:
    """One operator each in ONNX; in torch's own graph it is said that it takes long."""
    said: list[str] = []
    written = export(small(), tmp_path / f"small.{form}", form, say=said.append)
    assert written.difference.shape == (3, 3, 129, 146) and written.difference.share < 1e-6
    assert written.free == ("batch", "height", "width")
    if form == "onnx":
        nodes = [node for node in onnx.load(written.path).graph.node if node.op_type == "Conv"]
        assert sum(any(a.name == "auto_pad" and a.s == b"SAME_UPPER" for a in node.attribute) for node in nodes) == 2
    assert [line for line in said if "minutes" in line] == said and len(said) == (form == "pt2")
    trained = load_trained(str(written.path))
    assert (
        trained.labels == ("a", "b", "c")
        and trained.spec.size == (12, 12)
        and trained.config["std"] == [0.25, 0.2, 0.5]
    )


def test_what_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the network itself changes, once it was exported."""
    trained, reader = small(), load_exported

    def disturb(path: Path) -> Any:
        nn.init.zeros_(trained.network[-1].weight)
        return reader(path)

    monkeypatch.setattr("zoo.export.writing.load_exported", disturb)
    with pytest.raises(ExportError, match=r"computes something else: .* nothing was written"):
        export(trained, tmp_path / "small.pt2", "pt2", fixed=True)
    assert not [*tmp_path.iterdir()]


def test_measuring_leaves_the_network_as_it_is() -> None:
    """In eval mode, with the statistics of its norms, so that it answers the same when it is measured again."""
    trained = small()
    pictures = [Image.new("RGB", (12, 12), (40 * k, 90, 200 - 40 * k)) for k in range(4)]
    data = (Images(pictures, [0, 1, 2, 0]), ("a", "b", "c"), "four")
    exported: Any = small().network
    before = {key: value.clone() for key, value in trained.network.state_dict().items()}
    found = compare_on(trained, exported, data, by_order=False)
    assert found.before.n == 4 and not trained.network.training
    assert all(value.equal(before[key]) for key, value in trained.network.state_dict().items())


def test_a_pt2_file_of_a_stranger_is_not_unpickled(tmp_path: Path) -> None:
    """torch would; and nothing runs before it is refused."""
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("x/data/sample_inputs/model.pt", pickle.dumps(Small))
    with zipfile.ZipFile(tmp_path / "y.pt2", "w") as archive:
        archive.writestr("y/data/weights/model_weights_config.json", '{"config": {"w": {"use_pickle": true}}}')
    for name, says in (("x", "holds inputs that are no tensors"), ("y", "holds pickled objects")):
        with pytest.raises(Exception, match=says):
            load_exported(tmp_path / f"{name}.pt2")


@pytest.mark.every
@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("cbam_resnet20_cifar", {}),
        ("bam_mobilenetv2_050", {"fixed": True}),
        ("cbam_resnet18_volume", {"pixels": True}),
        ("se_resnet20_cifar", {"form": "pt2", "compiled": True}),
    ],
)
def test_models_of_the_zoo(model: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    network: Any = timm.create_model(model).eval()
    config = timm.data.resolve_data_config({}, model=network)
    form = arguments.get("form", "onnx")
    size = {"cbam_resnet18_volume": (8, 16, 16), "bam_mobilenetv2_050": (64, 64)}.get(model, ())
    written = export(Trained(model, network, config, (), size), tmp_path / f"x.{form}", **arguments)
    assert written.difference.share < 1e-4
