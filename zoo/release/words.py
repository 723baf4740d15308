"""What a card says differently of a network for images and of one for volumes."""

from dataclasses import dataclass

IMAGE_USAGE = """import timm, torch, zoo
from PIL import Image

name = "hf-hub:{repo}"
model = timm.create_model(name, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
x = transform(Image.open("{file}").convert("RGB")).unsqueeze(0)

top = model(x).softmax(1).topk({top})
"""
VOLUME_USAGE = """import timm, torch, zoo
from pathlib import Path
from zoo.inference import load_trained, predict

name = "hf-hub:{repo}"
trained = load_trained(name)  # trained.network is timm's model
# uint8 (D, H, W) or (D, H, W, C), or a folder of frames
(said,) = predict(trained, [Path("{file}")], {top})
print(said.classes)

x = torch.rand(1, {size})
"""


@dataclass(frozen=True)
class Words:
    """The words for one kind of input; those that others need too are in zoo/data/kinds.py."""

    task: str
    """The Hub's name of the task, or what would be its name."""
    pipeline: str | None
    """The Hub's pipeline for the task; it has none for volumes."""
    protocol: str
    """Which part of an input the figures were measured on."""
    fitting: str
    """How an input is brought to the network's size; fields of the pretrained_cfg in braces."""
    file: str
    """Example of a file."""
    usage: str
    """Python that loads the model and asks it; `repo`, `file`, `top` and `size` in braces."""


WORDS = {
    "images": Words(
        task="image-classification",
        pipeline="image-classification",
        protocol="Single crop",
        fitting="{interpolation}, crop {crop_pct}",
        file="image.jpg",
        usage=IMAGE_USAGE,
    ),
    "volumes": Words(
        task="volume-classification",
        pipeline=None,
        protocol="Whole volumes",
        fitting="averaged to that size",
        file="volume.npy",
        usage=VOLUME_USAGE,
    ),
}
"""By the name of a kind of zoo/data/kinds.py."""
