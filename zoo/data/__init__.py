"""Data by one string, checked, split, and brought to the device in batches."""

from zoo.data.images import EXTENSIONS, DataError, Images, read_image
from zoo.data.splitting import Data, Splitting, open_data, open_held_out
from zoo.data.volumes import Volumes

__all__ = [
    "EXTENSIONS",
    "Data",
    "DataError",
    "Images",
    "Splitting",
    "Volumes",
    "open_data",
    "open_held_out",
    "read_image",
]
