"""`digits`: the data set that comes with scikit-learn, so that it needs no file."""

import numpy as np
from PIL import Image

from zoo.data.images import Images
from zoo.data.sources.parts import WHOLE, Parts


def read_digits() -> Parts:
    """1797 handwritten digits of 43 people, 8x8 pixels in 17 greys (UCI, in scikit-learn), enlarged to 32x32."""
    from sklearn.datasets import load_digits  # takes a second

    greys, labels = load_digits(return_X_y=True)
    pixels = (greys.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images = [Image.fromarray(pixel).resize((32, 32), Image.Resampling.BICUBIC) for pixel in pixels]
    return Parts({WHOLE: Images(images, labels.tolist())}, tuple("0123456789"), {})
