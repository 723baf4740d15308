"""The page, in Gradio: one column of what goes in, one of what comes out; below each other on a narrow screen.

It asks nothing of any other machine: no analytics, no fonts from outside. What is given to it is deleted when it ends.
"""

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from zoo.demo.examples import write_examples
from zoo.demo.look import DemoError, Shown, look
from zoo.errors import UserError
from zoo.explain.figure import COLUMNS
from zoo.inference import load_trained

HERE = "127.0.0.1"
INSTALL = "pip install 'timm-attention-zoo[demo,explain]'"
DEFAULT = ("cbam_tf_efficientnet_lite0", "tf_efficientnet_lite0")
"""Networks whose weights lie in the package, for a page without arguments."""
NONE = "none"
LARGEST = "10mb"
"""Of a file that is given to the page."""
KEPT = 600
"""Seconds for which an uploaded file and its figure stay, so that they can be looked at."""
WIDE = 700
"""Pixels of a page on which the panels of a figure stand in a row of four; in two below that."""
MEASURED = "(file, name, other) => [file, name, other, window.innerWidth]"
STYLE = ".gradio-container {max-width: 1100px !important; margin: auto} footer {display: none !important}"


def require_gradio() -> None:
    """Raise DemoError where it is not installed."""
    if not find_spec("gradio"):
        raise DemoError(f"the page takes Gradio: {INSTALL}")


def serve(sources: Sequence[str], host: str = HERE, port: int | None = None, block: bool = True) -> Any:
    """Serve the page until Ctrl-C; unless `block`, return Gradio's Blocks, to be closed. Raises DemoError."""
    require_gradio()
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    folder = tempfile.TemporaryDirectory(prefix="zoo.demo.")
    examples, given = Path(folder.name, "examples"), Path(folder.name, "given")
    examples.mkdir()
    os.environ["GRADIO_TEMP_DIR"] = str(given)  # what lies in there Gradio deletes; of the examples it takes copies
    page, options = build(sources or DEFAULT, examples, host)
    try:
        page.launch(
            **options, server_name=host, server_port=port, quiet=True, prevent_thread_lock=True, max_file_size=LARGEST
        )
    except OSError as error:
        folder.cleanup()
        raise DemoError(f"port {port} of {host} cannot be served ({error}); give another with --port") from error
    page.folder = folder  # gone with the page
    if not block:
        return page
    print(f"{page.local_url} (Ctrl-C ends it; nothing that it is given is kept)", flush=True)
    try:
        page.block_thread()
    finally:
        page.close(verbose=False)
        folder.cleanup()
    return page


def build(sources: Sequence[str], folder: Path, host: str = HERE) -> tuple[Any, dict[str, Any]]:
    """The page, its examples in `folder`, and what its launch is to be told of its looks."""
    import gradio as gr  # pyright: ignore[reportMissingImports]

    names = [Path(source).name if Path(source).exists() else source for source in sources]
    if len({*names}) < len(names):
        names = [*sources]
    trained = {name: load_trained(source) for name, source in zip(names, sources, strict=True)}
    first = next(iter(trained.values()))
    if strange := [name for name, each in trained.items() if each.spec.kind is not first.spec.kind]:
        raise DemoError(
            f"{strange[0]} takes {trained[strange[0]].spec.kind.many} and {names[0]} does not; show them apart"
        )
    examples = write_examples(first, folder)
    shown = {name: Shown(name, each, examples) for name, each in trained.items()}
    kind = first.spec.kind

    def answer(file: str | None, name: str, other: str, width: float = WIDE) -> tuple[Any, ...]:
        if not file:
            raise gr.Error(f"Give it one {kind.one} first, or take an example.", print_exception=False)
        asked = [shown[name], *([shown[other]] if other not in (NONE, name) else [])]
        try:
            figure, said = look(asked, Path(file), COLUMNS if width >= WIDE else 2)
        except UserError as error:
            raise gr.Error(str(error).replace(str(Path(file).parent) + os.sep, ""), print_exception=False) from None
        second = said[1].classes if len(said) > 1 else {}
        words = "\n\n".join(each.averaged for each in said)
        return said[0].classes, gr.Label(second, visible=bool(second), label=other), figure, words

    with gr.Blocks(title="zoo demo", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        stays = "It stays on this machine." if host == HERE else f"It is deleted within {2 * KEPT // 60} minutes."
        gr.Markdown(f"# What does the attention see?\nDrop one {kind.one}, or take an example. {stays}")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                file = gr.File(label=f"One {kind.one}", type="filepath", height=120)
                with gr.Row():
                    buttons = [gr.Button(path.stem, size="sm", min_width=80) for path in examples]
                name = gr.Dropdown([*shown], value=names[0], label="Network", interactive=True)
                other = gr.Dropdown([NONE, *shown], value=NONE, label="Compare with", interactive=len(shown) > 1)
                go = gr.Button("Look", variant="primary")
            with gr.Column(scale=2, min_width=280):
                classes = gr.Label(num_top_classes=5, label="Classes")
                compared = gr.Label(num_top_classes=5, visible=False)
                words = gr.Markdown()
        figure = gr.Plot(show_label=False)
        width = gr.Number(WIDE, visible=False)
        inputs: list[Any] = [file, name, other, width]
        outputs: list[Any] = [classes, compared, figure, words]
        limit: dict[str, Any] = {"concurrency_limit": 1, "show_progress": "minimal", "js": MEASURED}
        hidden: dict[str, Any] = {"api_name": False}
        private = {**hidden, **limit}
        go.click(answer, inputs, outputs, api_name="look", **limit)
        for button, path in zip(buttons, examples, strict=True):
            button.click(partial(str, path), None, file, **hidden).then(answer, inputs, outputs, **private)
    fonts: dict[str, Any] = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return page, {
        "theme": gr.themes.Default(**fonts),
        "css": STYLE,
        "footer_links": [],
        "pwa": False,
        "ssr_mode": False,
    }
