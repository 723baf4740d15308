"""Data by one string. Whatever it names, parts with labels and class names come out, split by one rule.

    digits                       scikit-learn's handwritten digits
    planted                      small shapes in clutter, drawn
    photos                       a folder of class folders, with or without train/, val/, test/
    photos.csv                   paths and labels, with or without a column `split`
    scans.npz, scans             volumes: arrays of NumPy in one file, or class folders of .npy files
    frames/FOLDER                clips: class folders of folders, each with the frames of a clip
    cifar100                     a folder of parquet files as the Hugging Face Hub stores them
    hfds/ORG/NAME, hfids/...     a data set of the Hub, loaded or streamed; wds/FOLDER: shards; torch/NAME@FOLDER
                                 (all four read by timm)

`#LABEL` or `#IMAGE,LABEL` behind it names the columns, where they have other names than usual.
"""

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
