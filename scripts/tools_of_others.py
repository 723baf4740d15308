"""Tools of torchvision, and of packages that may be missing: ONNX, torchao, segmentation_models_pytorch (smp)."""

import tempfile
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tool_network import Make, Tool, larger, require_same, stages
from torch import Tensor
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.feature_extraction import create_feature_extractor


def nodes(make: Make, x: Tensor) -> None:
    model = make()
    names = [info["module"] for info in model.feature_info[1:]]
    found = create_feature_extractor(model, {name: name for name in names})(x)
    require_same(list(found.values()), stages(make, x)[1:])


def layer_getter(make: Make, x: Tensor) -> None:
    model = make()
    last = [info["module"] for info in model.feature_info][-1]
    found = IntermediateLayerGetter(model, {last: "last"})(x)
    require_same(found["last"], stages(make, x)[-1])


def pyramid(make: Make, x: Tensor) -> None:
    model = make()
    named = {info["module"]: info["num_chs"] for info in model.feature_info[1:]}
    maps = BackboneWithFPN(model, {name: name for name in named}, list(named.values()), 16)(x)
    torch.stack([y.square().mean() for y in maps.values()]).sum().backward()


def segment(make: Make, x: Tensor, decoder: str) -> None:
    import segmentation_models_pytorch as smp  # pyright: ignore[reportMissingImports]

    model = getattr(smp, decoder)(f"tu-{make.name}", encoder_weights=None, classes=2, in_channels=x.shape[1])
    model.train()(F.interpolate(x, 64)).square().mean().backward()


def onnx(make: Make, x: Tensor) -> None:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    model, free = make(), torch.export.Dim.DYNAMIC
    shapes = ({axis: free for axis in (0, *range(2, x.ndim))},)
    example = larger(x)
    other = example[:2].transpose(-1, -2).contiguous()
    program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=shapes, verbose=False, optimize=False)
    assert program is not None
    with tempfile.TemporaryDirectory() as folder:
        program.save(file := str(Path(folder) / "model.onnx"))
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: other.numpy()})[0]
    require_same(torch.tensor(found), model(other), 1e-3)


def quantisation_of_exports(make: Make, x: Tensor) -> None:
    from torchao.quantization.pt2e.quantize_pt2e import (  # pyright: ignore[reportMissingImports]
        convert_pt2e,
        prepare_pt2e,
    )
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (  # pyright: ignore[reportMissingImports]
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(torch.export.export(make(), (x,)).module(), quantizer)
    prepared(x)
    require_same(convert_pt2e(prepared)(x), make()(x), 0.8)


TOOLS: dict[str, Tool] = {
    "onnx: torch.onnx.export, free sizes": onnx,
    "torchao: prepare_pt2e, convert_pt2e": quantisation_of_exports,
    "torchvision: create_feature_extractor": nodes,
    "torchvision: IntermediateLayerGetter": layer_getter,
    "torchvision: BackboneWithFPN": pyramid,
    "smp: Unet": partial(segment, decoder="Unet"),
    "smp: DeepLabV3Plus": partial(segment, decoder="DeepLabV3Plus"),
    "smp: FPN": partial(segment, decoder="FPN"),
}
