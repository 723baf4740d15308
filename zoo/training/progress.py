"""What a run tells while it trains: a bar on a terminal, lines elsewhere, and an experiment tracker's curves."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from zoo.training.job import Job
from zoo.training.run_directory import Epoch
from zoo.training.trackers import TRACKERS

SILENCE = 30.0
"""Seconds after which a run says where it is, if it has said nothing."""


class Progress:
    """Told by the leading process alone, while `telling` lasts."""

    def __init__(self, job: Job, directory: Path, step: int) -> None:
        leads = job.world.leads
        open_tracker = TRACKERS.get(job.recipe.tracker) if leads else None
        self.tracker = open_tracker(directory, vars(job.recipe)) if open_tracker else None
        self.epochs, self.updates, self.step, self.begun = job.recipe.epochs, job.batches.updates, step, step
        kind: Callable[[Progress, Job], Teller] = _Bar if sys.stderr.isatty() else _Lines
        self.teller: Teller = kind(self, job) if leads else _Silence()
        self.measuring = False
        self.at_most = "at most " if job.recipe.patience else ""

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Tell while this lasts; then the terminal is left to what is said next."""
        self.started = time.monotonic()
        self.teller.begin()
        try:
            yield
        finally:
            self.teller.end()
            if self.tracker:
                self.tracker.end()

    def after_update(self) -> None:
        """An update was made."""
        self.step += 1
        self.teller.update()

    def measure(self) -> None:
        """The updates of an epoch, or of the run, are made, and what is held out is measured."""
        self.measuring = True

    def after_epoch(self, row: Epoch) -> None:
        """An epoch was measured."""
        self.measuring = False
        if self.tracker:
            self.tracker.log(asdict(row), row.epoch)
        self.teller.epoch(
            row, f"loss {row.train_loss:.3f}, top-1 {row.val_top1:.2f} %, {row.images_per_second:.0f} img/s"
        )

    @property
    def left(self) -> str:
        """The time that is left, in words, if the updates to come take as long as those so far."""
        done, to_come = self.step - self.begun, self.epochs * self.updates - self.step
        if not done or not to_come:
            return ""
        return f", {self.at_most}{in_words((time.monotonic() - self.started) / done * to_come)} left"

    @property
    def place(self) -> str:
        """Where the run is."""
        if self.measuring:
            return f"epoch {(self.step - 1) // self.updates + 1}/{self.epochs}, measuring"
        epoch, update = divmod(self.step, self.updates)
        return f"epoch {epoch + 1}/{self.epochs}, update {update + 1} of {self.updates}"


def in_words(seconds: float) -> str:
    """`8 s`, `5 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Teller(Protocol):
    """A way of telling."""

    def begin(self) -> None: ...
    def update(self) -> None: ...
    def epoch(self, row: Epoch, news: str) -> None: ...
    def end(self) -> None: ...


class _Silence:
    """Of the processes that do not lead."""

    def begin(self) -> None: ...
    def update(self) -> None: ...
    def epoch(self, row: Epoch, news: str) -> None: ...
    def end(self) -> None: ...


class _Bar:
    """For a terminal: the images of the whole run, the time that it takes, and that is left."""

    def __init__(self, progress: Progress, job: Job) -> None:
        self.progress, self.images, self.name = progress, job.recipe.batch_size, job.recipe.model
        self.bar: Any = None

    def begin(self) -> None:
        progress = self.progress
        self.bar = tqdm(
            total=progress.epochs * progress.updates * self.images,
            initial=progress.step * self.images,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            desc=self.name,
        )

    def update(self) -> None:
        if self.bar is not None:
            self.bar.update(self.images)

    def epoch(self, row: Epoch, news: str) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(news)

    def end(self) -> None:
        self.bar.close()


class _Lines:
    """Elsewhere: a line an epoch, and one whenever there was none for a while, from a thread: an update may be long."""

    def __init__(self, progress: Progress, job: Job) -> None:
        self.progress, self.ended = progress, threading.Event()
        self.said = 0.0

    def begin(self) -> None:
        self.said = time.monotonic()
        threading.Thread(target=self._break_silence, daemon=True).start()

    def update(self) -> None: ...

    def epoch(self, row: Epoch, news: str) -> None:
        self._say(f"epoch {row.epoch}/{self.progress.epochs}: {news}{self.progress.left}")

    def end(self) -> None:
        self.ended.set()

    def _break_silence(self) -> None:
        while not self.ended.wait(max(0.0, self.said + SILENCE - time.monotonic())):
            if time.monotonic() - self.said >= SILENCE:
                self._say(f"{self.progress.place}{self.progress.left}")

    def _say(self, line: str) -> None:
        self.said = time.monotonic()
        print(line, file=sys.stderr, flush=True)
