"""Open the first frame of an image with Pillow, as the file stores it: not turned, and of the size in its header.

Pillow's AVIF reader would start as many threads as there are cores for each image. Their time would not count against
the limit of one decode.
"""

from __future__ import annotations

import io

from PIL import AvifImagePlugin, Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from manyview_server.image_header import ImageHeader

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
AVIF_THREADS = 1


class SizesDiffer(ValueError):
    """Pillow finds another size than the header states."""


def open_first_frame(data: bytes, header: ImageHeader) -> ImageFile.ImageFile:
    """Return the first frame, which is not decoded yet.

    Raises:
        SizesDiffer: the file states two sizes.
        Exception: nearly anything, because Pillow's readers raise nearly anything for damaged files.
    """
    image: ImageFile.ImageFile
    if header.extension == "tif":
        image = _StoredTiff(io.BytesIO(data))
    else:
        AvifImagePlugin.DEFAULT_MAX_THREADS = AVIF_THREADS
        if header.extension == "avif":
            data = _without_sequence(data)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    stated = (header.width, header.height) if header.orientation < 5 else (header.height, header.width)
    if image.size != stated:
        raise SizesDiffer(f"{image.size[0]} x {image.size[1]} and {stated[0]} x {stated[1]} pixels")
    return image


class _StoredTiff(TiffImageFile):
    """A TIFF that Pillow does not turn. It would follow tags and texts that the header's reader does not follow."""

    def _setup(self) -> None:
        super()._setup()
        self._size = self._tile_size

    def load_end(self) -> None:
        """Leave the pixels as they are."""


def _without_sequence(data: bytes) -> bytes:
    """Return an AVIF with the brand of a still image. Otherwise Pillow might read its track of frames instead."""
    return data if data[8:12] == b"avif" else data[:8] + b"avif" + data[12:]
