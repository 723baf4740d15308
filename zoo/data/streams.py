"""Streams: data sets that timm's readers read one image after the other out of shards, `wds/...` and `hfids/...`.

Whole shards go to loader processes, so each process has to get one. In training every one of them reads equally many
images: one with few of them reads some twice, one with many leaves some out, so an epoch has as many images as the set
but not each of them once. Measuring reads each image once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

from PIL import Image
from torch.utils.data import IterableDataset

from zoo.data.images import DataError, read_image, what_is_wrong
from zoo.data.order import Share, generator, seed_of
from zoo.data.worker_errors import Loader


class Stream(IterableDataset[tuple[Any, int]]):
    """A data set of timm's that is read in order, as (image, class index); images are RGB, before any transform."""

    def __init__(self, timms: Any, name: str, classes: int) -> None:
        self.reader, self.name, self.classes = timms.reader, name, classes
        self.transform: Callable[[Any], Any] = _as_it_is

    def __len__(self) -> int:
        """Images in the set. timm's own length is of one process, and of its loader processes."""
        return self.reader.num_samples

    def __iter__(self) -> Iterator[tuple[Any, int]]:
        rows = iter(self.reader)
        try:
            with _refusing(self.name):  # the reader asks what to do with errors before its first image
                first = list(islice(rows, 1))
            for image, label in chain(first, rows):
                yield self.transform(read_image(image)), self._known(label)
        except (Image.UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise DataError(f"cannot read an image of {self.name}: {what_is_wrong(error)}") from None

    def _known(self, label: Any) -> int:
        if isinstance(label, int) and 0 <= label < self.classes:
            return label
        raise DataError(f"{self.name} has the label {label!r}, which is none of its {self.classes} classes; mend it")

    @cached_property
    def shards(self) -> int:
        """How many files it is in."""
        if hasattr(self.reader, "split_info"):  # WebDataset's
            return len(self.reader.split_info.filenames)
        return self.reader.builder.as_streaming_dataset(split=self.reader.split).num_shards

    def for_training(self, workers: int, batch_size: int, world: int) -> "Stream":
        """The stream that gives each of `workers` loader processes whole batches, enough for an epoch.

        Raises DataError if there are too few shards for `world` times as many loader processes.
        """
        # The Hub's are dealt to processes by images where they cannot be by shards.
        by_images = not hasattr(self.reader, "split_info") and self.shards % world
        if (most := self.shards // (1 if by_images else world)) < workers:
            many = "1 file" if self.shards == 1 else f"{self.shards} files"
            where = f"{many} for {world} processes" if world > 1 else many
            mend = f"set workers = {most}, or cut it into more" if most else "cut it into more"
            raise DataError(f"{self.name} is in {where}, too few for {workers} loader processes each; {mend}")
        stream = self._copied()
        stream.reader.batch_size = batch_size
        stream.reader.set_loader_cfg(num_workers=workers)
        return stream

    def for_measuring(self, rank: int, world: int, transform: Callable[[Any], Any]) -> "Stream":
        """This process's share of the images, so that all processes together read each of them once."""
        stream = self._copied()
        stream.transform = transform
        if world > 1 and hasattr(stream.reader, "split_info"):
            # In several processes timm reads equally many images in each, some of them twice and others never.
            reader, info = stream.reader, stream.reader.split_info
            reader.split_info = replace(info, filenames=info.filenames[rank::world])
            reader.dist_rank, reader.dist_num_replicas = 0, 1
            if not reader.split_info.filenames:  # WebDataset takes no empty list
                stream.reader = ()
        return stream

    def _copied(self) -> "Stream":
        stream = copy(self)
        stream.__dict__.pop("shards", None)
        stream.reader = copy(self.reader)
        stream.reader.ds = None  # made anew in each loader process
        return stream


def _as_it_is(image: Any) -> Any:
    return image


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """What is read of WebDataset's shards from here on stops at what cannot be read; timm leaves it out."""
    from timm.data.readers import reader_wds  # with webdataset, which only shards need

    usual = reader_wds.log_and_continue
    reader_wds.log_and_continue = partial(_refuse, name)
    try:
        yield
    finally:
        reader_wds.log_and_continue = usual


def _refuse(name: str, error: Exception) -> bool:
    raise DataError(f"cannot read an image of {name}: {what_is_wrong(error)}") from None


class StreamBatches:
    """Micro-batches out of shards, in the order that timm's reader shuffles them into.

    Going on in the middle of an epoch reads over what was there before, so it takes as long as reading does.
    """

    def __init__(self, stream: Stream, share: Share, transforms: Sequence[Callable[[Any], Any]], workers: int) -> None:
        self.share, self.transforms = share, transforms
        self.workers = max(1, workers)  # a reader in the training process would remember the epochs before
        self.batch_size = share.batch_size // (share.world * share.accumulate)
        self.updates = share.updates
        self.stream = stream.for_training(self.workers, self.batch_size, share.world)
        self.stream.reader.common_seed = seed_of("stream", share.seed)  # of all processes; timm's own is always 42

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any]]:
        """Micro-batches of the epoch from the update `start` on."""
        share = self.share
        self.stream.reader.set_epoch(epoch)
        self.stream.transform = self.transforms[epoch]
        loader = Loader(
            self.stream,
            batch_size=self.batch_size,
            num_workers=self.workers,
            drop_last=True,
            generator=generator("cpu", "stream", share.seed, epoch, share.rank),
        )
        wanted, given = share.updates * share.accumulate, 0
        batches = iter(loader)
        while given < wanted:
            if (batch := next(batches, None)) is None:
                raise DataError(f"the stream ended after {given} of {wanted} batches; does it say too many images?")
            given += 1
            if given > start * share.accumulate:
                yield batch
