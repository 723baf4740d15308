"""The verb that releases a run."""

from itertools import takewhile
from typing import Any

import click

LISTS = ("--seeds", "--baseline")
"""Options that take all values up to the next option."""


class WithLists(click.Command):
    """A verb whose LISTS may be given as `--seeds RUN RUN`, which click knows as `--seeds RUN --seeds RUN` only."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        while args:
            word, *args = args
            values = list(takewhile(lambda value: not value.startswith("-"), args)) if word in LISTS else []
            if word in LISTS and not values:
                raise click.UsageError(f"{word} takes a run at least", ctx)
            args = args[len(values) :]
            words += [part for value in values for part in (word, value)] or [word]
        return super().parse_args(ctx, words)


@click.command(cls=WithLists)
@click.argument("source", type=click.Path(), default="")
@click.option("--repo", required=True, metavar="ORG/NAME", help="Repository on the Hub (with --all: ORG).")
@click.option("--tag", default="", metavar="TAG", help="Tag of the release, such as v1.")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--create-pr", is_flag=True, help="Propose the release instead of making it.")
@click.option("--dry-run", is_flag=True, help="Write SOURCE.staged and say what would happen; offline.")
@click.option("--revision", default="main", metavar="BRANCH", show_default=True, help="Branch to commit to.")
@click.option("--message", default="", metavar="TEXT", help="Message of the commit.")
@click.option("--replaces", default="", metavar="ORG/NAME", help="Have that card name this one as its new version.")
@click.option("--license", default="", metavar="ID", help="Licence of the weights, as the Hub calls it: apache-2.0 ...")
@click.option("--seeds", multiple=True, metavar="RUN ...", help="Runs of the same recipe, other seeds.")
@click.option("--baseline", multiple=True, metavar="RUN ...", help="Runs of the plain network by the same recipe.")
@click.option("--measure", default="", metavar="DATA", help="Evaluate on it, in place of the run's figures.")
@click.option("--part", default="", metavar="PART", help="With --measure: train, val, test or all of it, as in eval.")
@click.option("--by-order", is_flag=True, help="With --measure: match classes by their order, not by name.")
@click.option("--space", is_flag=True, help="Make a Space of the same name, with the page of zoo demo on it.")
@click.option("--register", is_flag=True, help="Write the row of zoo/weights/weights.json (in a checkout).")
@click.option(
    "--all", "every", is_flag=True, help="Release each row of zoo/weights/weights.json that is not on the Hub."
)
def publish(
    source: str,
    repo: str,
    tag: str,
    private: bool,
    create_pr: bool,
    dry_run: bool,
    revision: str,
    message: str,
    replaces: str,
    license: str,
    seeds: tuple[str, ...],
    baseline: tuple[str, ...],
    measure: str,
    part: str,
    by_order: bool,
    space: bool,
    register: bool,
    every: bool,
) -> None:
    """Release a run on the Hugging Face Hub, read back and compared.

    SOURCE is a run directory or a model folder.
    """
    from zoo.release.publish import PublishError, Target, publish_all
    from zoo.release.publish import dry_run as stage_only
    from zoo.release.publish import measure as measure_on
    from zoo.release.publish import publish as publish_one

    if every == bool(source):
        raise PublishError("give a run or a model folder, or --all")
    if (part or by_order) and not measure:
        raise PublishError(f"{'--part' if part else '--by-order'} says how to measure; give --measure DATA too")
    where: dict[str, Any] = {"repo": repo, "tag": tag, "revision": revision, "replaces": replaces}
    target = Target(**where, private=private, create_pr=create_pr, message=message)
    if every:
        of_one_run = {
            "--dry-run": dry_run,
            "--create-pr": create_pr,
            "--replaces": replaces,
            "--license": license,
            "--seeds": seeds,
            "--baseline": baseline,
            "--measure": measure,
            "--space": space,
        }
        for option, value in of_one_run.items():
            if value:
                raise PublishError(f"{option} is for one run; --all takes what the manifest says")
        releases = publish_all(repo, target, say=print)
        released = f"{len(releases)} of the manifest's rows released"
        print(released if releases else "every row of the manifest is released")
        return
    facts = (license, seeds, baseline, measure_on(source, measure, part, by_order) if measure else None)
    if dry_run:
        staged, beside = stage_only(source, target, *facts, space=space)
        print(f"{staged.name} would go to {target.repo}, branch {target.revision}, as one commit:")
        for path, file in staged.files.items():
            print(f"  {path}  {file.stat().st_size} bytes")
        print(f"then be read back and compared{f', and tagged {target.tag}' if target.tag else ''}")
        print(f"the files: {staged.folder}")
        if beside:
            print(f"the Space {target.repo} would then show it: {beside}")
        return
    release = publish_one(source, target, *facts, register, say=print, space=space)
    done = "published" if release.changed else "nothing to do, it is all there:"
    print(f"{done} {release.name} at {release.url}\n\nLoad it:\n\n    import timm, zoo")
    print(f'    model = timm.create_model("hf-hub:{release.repo}@{release.tag or release.commit}", pretrained=True)')
    if space:
        print(f"\nTry it: {release.url.partition(release.repo)[0]}spaces/{release.repo}")
        if private:
            print("It reads the private weights by a secret HF_TOKEN, which you add in its settings.")
