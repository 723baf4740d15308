"""The verb that serves a page to try networks on."""

import click


@click.command()
@click.argument("models", nargs=-1, type=click.Path())
@click.option("--host", default="127.0.0.1", show_default=True, metavar="NAME", help="0.0.0.0 lets others in.")
@click.option("--port", type=click.IntRange(1, 65535), default=None, help="Default the first free one from 7860.")
def demo(models: tuple[str, ...], host: str, port: int | None) -> None:
    """Serve a page on which networks are tried, on this machine alone.

    MODELS are runs, model folders, hf-hub:ORG/NAME, or names of models with weights; without any, networks whose
    weights lie in the package. The page shows classes, Grad-CAM, the gates of each stage, and whether averaging the
    gates changes the answer. It needs no network.
    """
    from zoo.demo.page import serve

    serve(models, host, port)
