"""The header of an image, as all formats give it, and the error that refuses an image."""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_PIXELS = 1 << 27
"""The most pixels that a worker decodes. The settings may allow fewer."""
MAX_SIDE = 65_535
"""The longest side that a worker decodes, which is the longest of a JPEG."""


class HeaderRefused(ValueError):
    """The header shows that the image must be refused. `reason` is one of the reasons of `ImageError`, and `str()` is a
    sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageHeader:
    """The format and size of an image."""

    extension: str
    """The format: "jpg", "png", "webp", "gif", "bmp", "tif", "avif" or "ppm"."""
    width: int
    """Pixels, after the turn that `orientation` asks for. So is `height`."""
    height: int
    orientation: int = 1
    """The EXIF number, 1 to 8, of the turn that the stored pixels need."""
    profile: bytes = field(default=b"", repr=False)
    """The ICC profile of a JPEG. The readers of other formats do not look for it."""
    pixels_start: int = 0
    """The position of the first pixel of a PPM, in bytes."""


def corrupt(message: str) -> HeaderRefused:
    """Return the error for a damaged header."""
    return HeaderRefused("HEADER_CORRUPT", message)


def sized(extension: str, width: int, height: int, orientation: int = 1) -> ImageHeader:
    """Return a header with the size of the image after the turn that `orientation` asks for."""
    if width < 1 or height < 1:
        raise corrupt(f"{extension} header states {width} x {height} pixels")
    if orientation >= 5:  # 5 to 8 turn by a quarter
        width, height = height, width
    return ImageHeader(extension=extension, width=width, height=height, orientation=orientation)
