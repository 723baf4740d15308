"""What a run tells while it trains: a bar on a terminal, a line an epoch elsewhere, and TensorBoard's curves."""

import sys
from collections.abc import Callable
from dataclasses import astuple, fields
from pathlib import Path

from tqdm import tqdm

from zoo.training.job import Job
from zoo.training.run_directory import Epoch


class Progress:
    """Told by the leading process alone."""

    def __init__(self, job: Job, directory: Path, step: int) -> None:
        self.recipe, leads = job.recipe, job.world.leads
        self.log_epoch = _tensorboard(directory) if job.recipe.tensorboard and leads else None
        self.bar = tqdm(
            total=job.recipe.epochs * job.batches.updates * job.recipe.batch_size,
            initial=step * job.recipe.batch_size,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            desc=job.recipe.model,
            disable=None if leads else True,  # None: where there is no terminal
        )

    def after_update(self) -> None:
        """An update was made."""
        self.bar.update(self.recipe.batch_size)

    def after_epoch(self, row: Epoch) -> None:
        """An epoch was measured."""
        if self.log_epoch:
            self.log_epoch(row)
        news = f"loss {row.train_loss:.3f}, top-1 {row.val_top1:.2f} %, {row.images_per_second:.0f} img/s"
        self.bar.set_postfix_str(news)
        if self.bar.disable:
            print(f"epoch {row.epoch}/{self.recipe.epochs}: {news}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal to what is said next."""
        self.bar.close()


def _tensorboard(directory: Path) -> Callable[[Epoch], None]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(directory / "tensorboard"))

    def log_epoch(row: Epoch) -> None:
        for f, value in zip(fields(Epoch), astuple(row), strict=True):
            writer.add_scalar(f.name, value, row.epoch)
        writer.flush()

    return log_epoch
