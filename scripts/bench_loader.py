"""How many images a second one CPU core decodes and augments for training at 224 pixels, and their mean size.

    python scripts/bench_loader.py FOLDER

FOLDER is searched for JPEG files, of which at most 1000 are read; the second of two rounds counts.
"""

import sys
import time
from itertools import islice
from pathlib import Path

import torch

from zoo.data import Images
from zoo.data.loaders import HostBatches, training_transform
from zoo.data.order import Share

CONFIG = {"input_size": (3, 224, 224), "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3}


def main() -> None:
    """Read, decode, crop, mirror and collate; seconds of CPU time, so that other programs do not count."""
    torch.set_num_threads(1)
    found = (path for path in Path(sys.argv[1]).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    files = list(islice(found, 1000))
    transform = training_transform(CONFIG, (224, 224))
    batches = HostBatches(Images(files, [0] * len(files)), Share(len(files), 50), [transform], 0, False)
    speed = 0.0
    for epoch in range(2):
        start = time.process_time()
        speed = sum(len(images) for images, _ in batches.epoch(epoch)) / (time.process_time() - start)
    size = sum(path.stat().st_size for path in files) / len(files) / 1e3
    print(f"{len(files)} files of {size:.0f} KB: {speed:.0f} images a second and core")


if __name__ == "__main__":
    main()
