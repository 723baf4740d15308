"""The `zoo` command: a table of verbs, each a Python function that also works without it."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.training.run_directory import Run


def run_train(options: argparse.Namespace) -> None:
    """Train a model by a recipe file."""
    from zoo.training.recipe import load_recipe
    from zoo.training.start import resume, train

    if bool(options.recipe) == bool(options.resume):
        raise ValueError("zoo train takes a recipe, or --resume RUN, and one of them; configs/ has recipes")
    if options.resume:
        run = resume(options.resume, options.set)
    else:
        recipe = load_recipe(options.recipe, options.set)
        run = train(recipe, options.out or _default_out(Path(options.recipe).stem))
    _tell(run)


def _tell(run: "Run") -> None:
    """Say what came out and how it is loaded; once, if several processes trained."""
    if os.environ.get("RANK", "0") != "0":
        return
    print(f"\ntop-1 {run.score.top1:.2f} %, top-5 {run.score.top5:.2f} %, n = {run.score.n} held out", end="")
    print(f" ({run.measured_on})")
    print(f"run: {run.directory} (report.html shows the curves)\n\nLoad it:\n")
    print("    import timm, zoo")
    print(f'    model = timm.create_model("local-dir:{run.directory / "model"}", pretrained=True)')


def run_finetune(options: argparse.Namespace) -> None:
    """Fine-tune a model with weights on your images."""
    from zoo.training.fine_tuning import finetune

    out = options.out or _default_out(f"{options.model.split('.')[0]}-{Path(options.data).stem}")
    _tell(finetune(options.model, options.data, out, options.weights, options.epochs, options.set))


def run_check_data(options: argparse.Namespace) -> int:
    """Look at every image of a data set before training on it."""
    from zoo.data.check import check_data

    report = check_data(options.data)
    print(json.dumps(asdict(report), ensure_ascii=False) if options.json else report.text())
    return 1 if report.problems else 0


def run_eval(options: argparse.Namespace) -> None:
    """Measure a trained model on held-out images."""
    from zoo.data import open_held_out
    from zoo.inference.evaluation import append_results, evaluate_images
    from zoo.inference.trained import load_trained

    images, classes, words = open_held_out(options.data, options.part)
    trained = load_trained(options.model)
    score = evaluate_images(trained, images, classes, options.batch_size, options.workers)
    if options.csv:
        append_results(options.csv, trained, score)
    figures = {name: getattr(score, name) for name in ("top1", "top5", "macro_f1", "ece", "loss", "n")}
    if options.json:
        recall = [None if value != value else value for value in score.per_class]
        print(json.dumps({**figures, "per_class": recall, "confusion": score.confusion.long().tolist()}))
    else:
        print(f"top-1 {score.top1:.2f} %, top-5 {score.top5:.2f} %, macro-F1 {score.macro_f1:.2f} %, ", end="")
        print(f"calibration error {score.ece:.2f} %, loss {score.loss:.4f}, n = {score.n} ({words})")


def run_predict(options: argparse.Namespace) -> None:
    """Name what is on images or in volumes."""
    from zoo.inference.prediction import find_inputs, predict
    from zoo.inference.trained import load_trained

    failed = seen = 0
    trained = load_trained(options.model)
    for prediction in predict(trained, find_inputs(trained, options.images), options.top_k):
        seen += 1
        failed += bool(prediction.error)
        if options.json:
            print(json.dumps({**asdict(prediction), "file": str(prediction.file)}, ensure_ascii=False))
        elif prediction.error:
            print(prediction.error, file=sys.stderr)
        else:
            names = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in prediction.classes)
            print(f"{prediction.file}: {names}")
    if failed == seen:
        raise ValueError(f"none of {seen} files can be read by it")


def run_publish(options: argparse.Namespace) -> None:
    """Release a run on the Hugging Face Hub, read back and compared."""
    from zoo.release.publish import PublishError, Target, dry_run, measure, publish, publish_all

    if options.all == bool(options.source):
        raise PublishError("give a run or a model folder, or --all")
    target = Target(
        repo=options.repo,
        tag=options.tag,
        revision=options.revision,
        private=options.private,
        create_pr=options.create_pr,
        message=options.message,
    )
    if options.all:
        for name in ("dry_run", "create_pr", "license", "seeds", "baseline", "measure"):
            if getattr(options, name):
                raise PublishError(f"--{name.replace('_', '-')} is for one run; --all takes what the manifest says")
        releases = publish_all(options.repo, target, say=print)
        print(
            f"{len(releases)} of the manifest's rows released" if releases else "every row of the manifest is released"
        )
        return
    measured = measure(options.source, options.measure) if options.measure else None
    facts = (options.license, options.seeds, options.baseline, measured)
    if options.dry_run:
        staged = dry_run(options.source, target, *facts)
        print(f"{staged.name} would go to {target.repo}, branch {target.revision}, as one commit:")
        for path, file in staged.files.items():
            print(f"  {path}  {file.stat().st_size} bytes")
        print(f"then be read back and compared{f', and tagged {target.tag}' if target.tag else ''}")
        print(f"the files: {staged.folder}")
        return
    release = publish(options.source, target, *facts, options.register, say=print)
    done = "published" if release.changed else "nothing to do, it is all there:"
    print(f"{done} {release.name} at {release.url}\n\nLoad it:\n\n    import timm, zoo")
    print(f'    model = timm.create_model("hf-hub:{release.repo}@{release.tag or release.commit}", pretrained=True)')


def run_verify(options: argparse.Namespace) -> None:
    """Compare weights with their checksums, and load them."""
    from zoo.weights.verify import verify

    found = verify(options.model, say=lambda line: print(line, file=sys.stderr))
    print(
        f"{found.source}: {'healed' if found.healed else 'good'}, sha256 {found.sha256}, compared with {found.against}"
    )
    print(f"file: {found.file}")


def run_convert(options: argparse.Namespace) -> None:
    """Convert another project's weights to a model of the zoo."""
    from zoo.weights.convert import SOURCES, convert, write

    converted = convert(options.file, options.source, options.model, options.network)
    line = write(converted, options.out, options.tag)
    if not SOURCES[options.source].license:
        print(f"{SOURCES[options.source].origin} has no licence: ask its author before you publish", file=sys.stderr)
    print(f"{options.out}: {converted.name}, {converted.network.num_classes} classes\n\nLoad it:\n")
    print(f"    import timm, zoo\n    model = {line}")


def run_list(options: argparse.Namespace) -> None:
    """Print the zoo's models."""
    import timm

    names = timm.list_models(options.pattern, module="catalog")
    if not names:
        raise ValueError(f"no model of the zoo matches {options.pattern!r}; `zoo list` prints all")
    print("\n".join(names))


def _default_out(name: str) -> Path:
    """runs/NAME, or the first of runs/NAME-2, runs/NAME-3 ... that is not there."""
    if "WORLD_SIZE" in os.environ:
        raise ValueError("under torchrun, --out DIR is needed, so that processes started again find their run")
    directory = Path("runs") / name
    tries = (directory.with_name(f"{directory.name}-{k}") for k in range(2, sys.maxsize))
    return directory if not directory.exists() else next(path for path in tries if not path.exists())


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", nargs="?", help="a TOML file, see configs/")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run instead")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a field")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory; default runs/RECIPE")


def _finetune_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="a name of `zoo list`, or any timm model")
    parser.add_argument("data", help="data as in a recipe, such as a folder of class folders")
    parser.add_argument("--weights", default="", metavar="FILE|RUN|HUB-ID", help="instead of the model's own tag")
    parser.add_argument("--epochs", type=int, default=0, metavar="N", help="default by the size of the set")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override a field of the recipe"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory; default runs/MODEL-DATA")


def _check_data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", help="data as in a recipe")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON")


def _eval_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="run directory, model folder, hf-hub:ORG/NAME, or name of a model with weights")
    parser.add_argument("data", help="data as in a recipe; its test part, or val, or all there is")
    parser.add_argument("--part", choices=("train", "val", "test"), default="", help="another part of it")
    parser.add_argument("--json", action="store_true", help="all figures, per class too, as JSON")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="append a row in the columns of timm's results")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="loader processes")


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="run directory, model folder, hf-hub:ORG/NAME, or name of a model with weights")
    parser.add_argument("images", nargs="+", help="image files, volumes (.npy), folders of frames, or folders of these")
    parser.add_argument("--top-k", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="a JSON object a line")


def _publish_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", nargs="?", help="run directory or model folder")
    parser.add_argument("--repo", required=True, metavar="ORG/NAME", help="repository on the Hub (with --all: ORG)")
    parser.add_argument("--tag", default="", help="tag of the release, such as v1")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--create-pr", action="store_true", help="propose the release instead of making it")
    parser.add_argument("--dry-run", action="store_true", help="write SOURCE.staged and say what would happen; offline")
    parser.add_argument("--revision", default="main", metavar="BRANCH")
    parser.add_argument("--message", default="", help="message of the commit")
    parser.add_argument("--license", default="", help="licence of the weights, as the Hub calls it, such as apache-2.0")
    parser.add_argument("--seeds", nargs="+", default=[], metavar="RUN", help="runs of the same recipe, other seeds")
    parser.add_argument("--baseline", nargs="+", default=[], metavar="RUN", help="runs of the plain network by it")
    parser.add_argument("--measure", default="", metavar="DATA", help="evaluate on it, in place of the run's figures")
    parser.add_argument(
        "--register", action="store_true", help="write the row of zoo/weights/weights.json (in a checkout)"
    )
    parser.add_argument(
        "--all", action="store_true", help="release each row of zoo/weights/weights.json that is not on the Hub"
    )


def _verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="run directory, model folder, name of a model with weights, or ORG/NAME on the Hub"
    )


def _convert_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="safetensors, or PyTorch's format, of which only weights are read")
    parser.add_argument(
        "--from",
        dest="source",
        required=True,
        metavar="SOURCE",
        help="official, pytorchcv, luuuyi, torchvision or timm",
    )
    parser.add_argument("--model", required=True, help="what to make of it, such as cbam_resnet50")
    parser.add_argument("--out", type=Path, required=True, help="FILE.safetensors, or a folder for `zoo publish`")
    parser.add_argument("--network", default="", help="the source's own name of the network, where it decides")
    parser.add_argument("--tag", default="", help="of a folder's weights; default SOURCE_in1k")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pattern", nargs="?", default="*", help='such as "cbam_*"')


VERBS: dict[str, tuple[Callable[[argparse.Namespace], int | None], Callable[[argparse.ArgumentParser], None]]] = {
    "train": (run_train, _train_arguments),
    "finetune": (run_finetune, _finetune_arguments),
    "check-data": (run_check_data, _check_data_arguments),
    "eval": (run_eval, _eval_arguments),
    "predict": (run_predict, _predict_arguments),
    "publish": (run_publish, _publish_arguments),
    "verify": (run_verify, _verify_arguments),
    "convert": (run_convert, _convert_arguments),
    "list": (run_list, _list_arguments),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns 0; 1 for data with problems; 2 for a user's mistake, said in a line on stderr; 75 (EX_TEMPFAIL) for a run
    that a signal stopped and that can go on; 130 for Ctrl-C.
    """
    parser = argparse.ArgumentParser(prog="zoo", description="Attention ResNets and MobileNets for timm.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, (run, add_arguments) in VERBS.items():
        verb = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
        add_arguments(verb)
        verb.set_defaults(run=run)
    options = parser.parse_args(arguments)

    import zoo  # noqa: F401  registers the models
    from zoo.training.checkpoint import Interrupted

    try:
        return options.run(options) or 0
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"zoo: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(f"zoo: {stop}", file=sys.stderr)
        return 75
    except KeyboardInterrupt:
        print("zoo: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
