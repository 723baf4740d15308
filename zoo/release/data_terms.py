"""The data of a recipe as a card names it: its name, its id on the Hub, and under which terms one may use it."""

from pathlib import Path

IMAGENET = (
    "ImageNet's terms of access: research and education only, without commercial use (https://image-net.org/download)"
)
DATA_LICENSES = {
    "digits": "CC BY 4.0 (https://archive.ics.uci.edu/dataset/80, the test part, as scikit-learn has it)",
    "cifar10": "none stated by its authors (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "cifar100": "none stated by its authors (https://www.cs.toronto.edu/~kriz/cifar.html)",
    "imagenet": IMAGENET,
    "imagenet-1k": IMAGENET,
    "modelnet10_32.npz": "academic research only, the shapes are their authors' (https://modelnet.cs.princeton.edu)",
    "adrenalmnist3d.npz": "CC BY 4.0 (https://medmnist.com)",
}
"""By the last part of a recipe's `data`."""


def hub_dataset(data: str) -> str:
    """The Hub id of a recipe's `data`, empty if it is not from the Hub."""
    return data.split("#")[0].split("/", 1)[1] if data.startswith(("hfds/", "hfids/")) else ""


def data_name(data: str) -> str:
    """`cifar100` of `folder/cifar100#label`, `hfds/ORG/cifar100` or `torch/cifar100@FOLDER`."""
    return Path(data.split("#")[0].split("@")[0]).name.lower()


def data_license(data: str) -> str:
    """The terms of a recipe's `data` in words, as far as the zoo knows them."""
    return DATA_LICENSES.get(data_name(data), "ask the owner of the data")
