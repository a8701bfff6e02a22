"""Read an image's format, size and orientation, and limit what decoding it may cost. Nothing is decoded.

This is the only code that reads headers and orientations. The front uses it to refuse images, and the workers use it
to turn them, so a listed width and height are those that a job trains on. It imports nothing else of ours.

Every reader gets the whole file, never allocates by a size that the file claims, and looks at a bounded number of
parts.

- `formats`: recognize the format, and read the header. `header`: the header, and the error that refuses an image.
- `jpeg`, `png`, `webp`, `gif`, `bmp`, `tiff`, `avif`, `ppm`: one file per format.
- `exif`: the orientation in EXIF metadata. `boxes`, `av1`: the container of an AVIF, and the bitstreams inside.
"""

from manyview_server.image_header.formats import read_header, recognize
from manyview_server.image_header.header import MAX_PIXELS, MAX_SIDE, HeaderRefused, ImageHeader

__all__ = ["MAX_PIXELS", "MAX_SIDE", "HeaderRefused", "ImageHeader", "read_header", "recognize"]
