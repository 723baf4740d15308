"""An image as Pillow opens it, made what a network takes: upright, in RGB, with eight bits a colour.

Cameras write down how they were held (EXIF), scanners and microscopes write 16 bits; Pillow's own `convert` heeds
neither. What is transparent shows the colour that lies beneath, as in timm.
"""

import numpy as np
from PIL import ExifTags, Image

TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation of EXIF. ImageOps.exif_transpose writes the block anew as well, which fails if it is damaged."""
SIXTEEN_BITS_IN_32 = ("PNG", "PPM")
"""Formats whose images of mode I hold 0..65535: they know no wider numbers."""


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB with eight bits a colour, turned as its EXIF says. Raises whatever Pillow raises.

    ValueError for numbers of a range that nobody knows: 32-bit integers and floats.
    """
    image.load()  # TIFF is turned by Pillow as it is loaded, and says so no more
    turn = TURN.get(orientation(image))
    rgb = _rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def orientation(image: Image.Image) -> int:
    """What EXIF says, 1 to 8 or nonsense; 1, upright, if it says nothing or cannot be read."""
    try:
        said = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a damaged block raises whatever it meets; zoo check-data tells of it
        return 1
    return said if isinstance(said, int) else 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in SIXTEEN_BITS_IN_32):
        # The high byte, which is what Pillow takes of 16-bit colours; its `convert` would cut at 255.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        held = "32-bit integers" if image.mode == "I" else "floats"
        raise ValueError(f"it holds {held}, whose range only you know: scale them to 0..255, save 8 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # in one step Pillow warns
    return image.convert("RGB")
