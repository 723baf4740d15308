"""Publish a run on the Hugging Face Hub: one commit, read back and compared before it gets its tag.

Nothing is created before everything that can be known has been checked, and a second run of the same command changes
nothing.
"""

import glob
import json
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.inference import evaluate_images, load_trained, open_part
from zoo.release.benchmark import add_benchmark_result
from zoo.release.manifest_row import check_row, config_of, write_row
from zoo.release.public_paths import public_path
from zoo.release.publishable import check_folder, find_model
from zoo.release.send import Release, hub_of_zoo, send
from zoo.release.space import WRITTEN, send_space, stage_space
from zoo.release.staging import Staged, load_staged, stage
from zoo.release.target import PublishError, Target, check_target
from zoo.weights.manifest import FILE_NAME, WEIGHTS, read_manifest


def publish(
    source: str | Path,
    target: Target,
    license: str = "",
    seeds: Sequence[str | Path] = (),
    baseline: Sequence[str | Path] = (),
    measured: Mapping[str, Any] | None = None,
    register: bool = False,
    say: Callable[[str], None] = lambda line: None,
    manifest: Path = WEIGHTS,
    space: bool = False,
) -> Release:
    """Release a run or a model folder, as `stage` makes it ready; `say` gets a line about each step.

    `register` writes the release's row into `manifest`, `space` makes a Space that shows it. Raises StagingError,
    ModelError or PublishError before anything is sent, HubError when the Hub does not do its part.
    """
    check_target(target, register, space)
    with workplace() as folder:
        staged = stage(source, folder / "staged", target.repo, license, seeds, baseline, measured)
        logits = load_staged(staged)
        add_benchmark_result(staged)
        say(f"checked {staged.name}: {len(staged.files)} files, {staged.size / 1e6:.1f} MB of weights, it loads")
        if register:
            check_row(staged)
        api = hub_of_zoo()
        release = send(api, staged, logits, target, say, space)
        if space:
            files = stage_space(folder / "space", staged.name, target.repo, release.tag or release.commit)
            changed = send_space(api, files, target, say)
            release = replace(release, changed=release.changed or changed)
    if register:
        changed = write_row(staged, release, manifest)
        say(f"{'wrote' if changed else 'found'} its row in {manifest}")
        release = replace(release, changed=release.changed or changed)
    return release


def dry_run(
    source: str | Path,
    target: Target,
    license: str = "",
    seeds: Sequence[str | Path] = (),
    baseline: Sequence[str | Path] = (),
    measured: Mapping[str, Any] | None = None,
    space: bool = False,
) -> tuple[Staged, Path | None]:
    """Write the folder that `publish` would send, beside the source as SOURCE.staged; asks no network.

    With `space` the files of the Space are in SOURCE.space, which then is returned too.
    """
    check_target(target, register=False, space=space)
    find_model(source)
    source = Path(source) if Path(source).name not in ("", "..") else Path(source).resolve()
    place, beside = (source.with_name(f"{source.name}.{kind}") for kind in ("staged", "space"))
    for folder, sign in ((place, FILE_NAME), *([(beside, WRITTEN)] if space else [])):
        if folder.exists() and not (folder / sign).is_file():
            raise PublishError(f"{folder} is there already and no staged release; move it away")
    for left in source.parent.glob(f".{glob.escape(source.name)}.staged.*.new"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    with workplace(source.parent, f".{source.name}.staged.") as folder:
        staged = stage(source, folder / "staged", target.repo, license, seeds, baseline, measured)
        load_staged(staged)
        shutil.rmtree(place, ignore_errors=True)
        staged.folder.rename(place)
        if space:
            stage_space(folder / "space", staged.name, target.repo, target.tag or target.revision)
            shutil.rmtree(beside, ignore_errors=True)
            (folder / "space").rename(beside)
    return replace(staged, folder=place), beside if space else None


@contextmanager
def workplace(parent: Path | None = None, name: str = "zoo.publish.") -> Iterator[Path]:
    """A folder to work in, which is gone afterwards, whatever ends the work: SIGTERM and SIGHUP unwind it, too."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    here = threading.current_thread() is threading.main_thread()  # no other may say what a signal does
    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if here and hasattr(signal, name)]
    ending = [number for number in ending if signal.getsignal(number) is signal.SIG_DFL]  # nohup's stays ignored
    try:
        for number in ending:
            signal.signal(number, leave)
        with tempfile.TemporaryDirectory(prefix=name, suffix=".new", dir=parent) as folder:
            yield Path(folder)
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)


def publish_all(
    namespace: str, target: Target, say: Callable[[str], None] = lambda line: None, manifest: Path = WEIGHTS
) -> list[Release]:
    """Release each row of the manifest that has a file in the package and is not on the Hub, as NAMESPACE/MODEL.TAG.

    Files of weights that others have published are left to them.
    """
    releases = []
    for row in read_manifest(manifest):
        path = row.path(manifest)
        if path is None or row.hub:
            continue
        if row.upstream:
            say(f"{row.name}: others have published it, as {row.upstream}")
            continue
        with workplace() as folder:
            model = folder / row.name
            model.mkdir()
            (model / FILE_NAME).write_bytes(path.read_bytes())
            (model / "config.json").write_text(json.dumps(config_of(row)), encoding="utf-8")
            say(f"{row.name}:")
            to = replace(target, repo=f"{namespace}/{row.name}")
            releases.append(publish(model, to, register=True, say=say, manifest=manifest))
    return releases


def measure(source: str | Path, data: str, part: str = "", by_order: bool = False, workers: int = 2) -> dict[str, Any]:
    """Figures of a run or model folder on a part of `data`: what `publish` takes as `measured`.

    Without `part` it is what the run held out, or what is held out of other data, as in `zoo.inference.open_part`;
    `by_order` matches classes by their order. Raises DataError.
    """
    check_folder(find_model(source)[0])
    images, classes, words = open_part(source, data, part)
    score = evaluate_images(load_trained(str(source)), images, classes, workers=workers, by_order=by_order)
    figures = {name: getattr(score, name) for name in ("top1", "top5", "macro_f1", "n")}
    return {**figures, "split": words, "data": public_path(data)}
