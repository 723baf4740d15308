"""The verb that writes pages about runs."""

from pathlib import Path

import click

from zoo.cli.release import WithLists


@click.command(cls=WithLists)
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--baseline", multiple=True, metavar="RUN ...", help="Runs of the plain network by the same recipe.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="The page of several runs; default report.html."
)
def report(runs: tuple[Path, ...], baseline: tuple[str, ...], out: Path | None) -> None:
    """Write the page of a run anew, or one page about several.

    RUNS are run directories. Of one, RUN/report.html is written, with the pictures beside it. Of several, which are
    seeds of a recipe, or of one and a --baseline, the page has means, spreads and the difference seed by seed.
    """
    from zoo.cli.training import write_pages
    from zoo.report.several import read_run, write_comparison

    if len(runs) == 1 and not baseline and not out:
        read_run(runs[0])
        write_pages(runs[0])
        print(f"{runs[0] / 'report.html'}, and pictures beside it")
        return
    print(write_comparison(runs, [Path(run) for run in baseline], out or Path("report.html")))
