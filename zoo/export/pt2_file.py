"""A network as a `.pt2` file: torch's own graph, or compiled code for this processor."""

import warnings
from pathlib import Path
from typing import Any

import torch

from zoo.export.errors import ExportError
from zoo.export.graph import ByRemainder, example, free_axes, graph_of, replaced
from zoo.export.onnx_file import OTHERWISE, told
from zoo.inference import Trained
from zoo.inference.exported import About, as_metadata


def write_pt2(trained: Trained, path: Path, config: dict[str, Any], about: About, fixed: bool, compiled: bool) -> None:
    """Write one file; `compiled` by AOTInductor. Raises ExportError where torch cannot."""
    axes = {place: torch.export.Dim.DYNAMIC for place in free_axes(trained, about.pixels, fixed)}
    example_ = (example(trained, about.pixels, fixed),)
    graph = replaced(graph_of(trained, about.pixels), ByRemainder)
    metadata: Any = as_metadata(config, about)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.export.export(graph, example_, dynamic_shapes=(axes,))
            for node in program.graph.nodes:
                node.meta.pop("stack_trace", None)  # paths of this machine
            if compiled:
                _compile(program, path, metadata)
            else:
                torch.export.save(program, path, extra_files=metadata)
    except Exception as error:  # torch raises whatever its many parts meet
        raise ExportError(f"torch cannot export {trained.source}: {told(error)}; {OTHERWISE[fixed]}") from error


def _compile(program: Any, path: Path, metadata: dict[str, str]) -> None:
    from torch._inductor import aot_compile
    from torch.export.pt2_archive._package import package_pt2

    options = {"aot_inductor.package": True}
    files: Any = aot_compile(program.module(), *program.example_inputs, options=options)
    package_pt2(path, aoti_files={"model": files}, extra_files=metadata)
