"""A network as an ONNX file, by torch's exporter."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from zoo.errors import in_a_line
from zoo.export.errors import ExportError
from zoo.export.graph import InOne, example, free_axes, graph_of, has_same_padding, replaced
from zoo.inference import Trained
from zoo.inference.exported import INSTALL, About, as_metadata

OPSET = 20
SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter writes down the modules that a node comes from, from the network to the layer."""
NEEDED = ("onnx", "onnxscript", "onnxruntime")


def require_onnx() -> None:
    """Raise ExportError where what writes ONNX is not installed."""
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise ExportError(f"ONNX takes {' and '.join(missing)}: {INSTALL}; or take --format pt2")


def write_onnx(trained: Trained, path: Path, config: dict[str, Any], about: About, fixed: bool) -> None:
    """Write one file. Raises ExportError where the exporter cannot."""
    axes = free_axes(trained, about.pixels, fixed)
    graph, table = graph_of(trained, about.pixels), {}
    if has_same_padding(graph):
        graph, table = replaced(graph, InOne), {torch.ops.zoo.conv2d_same.default: _conv_same}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own parts
            program: Any = torch.onnx.export(
                graph,
                (example(trained, about.pixels, fixed),),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(axes,),
                input_names=["images"],
                output_names=["logits"],
                custom_translation_table=table,
                verbose=False,
            )
    except Exception as error:  # the exporter raises what its many parts meet
        raise ExportError(f"torch cannot export {trained.source}: {told(error)}; {OTHERWISE[fixed]}") from error
    model = program.model
    _strip(model)
    model.metadata_props.update(as_metadata(config, about))
    model.metadata_props.update(_for_others(trained))
    model.producer_name, model.producer_version = "timm-attention-zoo", config["zoo"]["version"]
    program.save(path, external_data=False)


def _strip(model: Any) -> None:
    """Leave out stack traces, which have paths of this machine, and shapes between the nodes.

    Those are of the example here and there, and ONNX Runtime, which infers them by itself, believes them.
    """
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        node.metadata_props.update({SCOPES: scopes} if scopes else {})
        for value in node.outputs:
            value.metadata_props.clear()
            if not value.is_graph_output():
                value.shape = None
    for part in (model.graph, *model.functions.values()):
        part.metadata_props.clear()


def _for_others(trained: Trained) -> dict[str, str]:
    """What programs that know nothing of timm want to know."""
    said = {"class_names": trained.names, "input_size": trained.spec.shape}
    keys = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
    return {key: json.dumps(value) for key, value in {**said, **{k: trained.config[k] for k in keys}}.items()}


def _conv_same(x: Any, weight: Any, bias: Any, stride: Any, dilation: Any, groups: int) -> Any:
    """ONNX's own form of TensorFlow's padding."""
    from onnxscript import opset20  # pyright: ignore[reportMissingImports]

    return opset20.Conv(x, weight, bias, auto_pad="SAME_UPPER", strides=stride, dilations=dilation, group=groups)


def told(error: BaseException) -> str:
    """What was wrong at the root of an exporter's error, whose own text is a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return in_a_line(error)


OTHERWISE = {
    False: "with --fixed-size it may, for inputs of one height and width",
    True: "it has a form that the exporter does not know",
}
"""The next step, by whether the size is fixed already."""
