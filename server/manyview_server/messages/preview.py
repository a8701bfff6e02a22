"""Messages between the front and a previewer."""

from __future__ import annotations

from dataclasses import dataclass

from manyview_server.messages.message import Json, Message

# ---- front to previewer ----


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewImages(Message):
    """Make the views of `blobs`, one encoded image each, as a job with these settings makes them in this epoch.

    An empty blob is an image that was refused already.
    """

    settings: dict[str, Json]
    epoch: int
    max_pixel_bytes: int
    """The most bytes of all images of the answer together, before compression."""
    too_slow: tuple[int, ...] = ()
    """The positions of images that took a decoder too long. They are not decoded again."""


# ---- previewer to front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedView:
    """One view of one image, and its parameters as `learn.views.replay` describes them."""

    pipeline: int
    size: int
    parameters: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedImage:
    """An image and its views, or the reason for which it has none."""

    reason: str = ""
    message: str = ""
    image_id: int = 0
    width: int = 0
    height: int = 0
    views: tuple[PreviewedView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewDone(Message):
    """The answer. `blobs`: for each image that could be read, a PNG of it and one of each of its views."""

    decode_size: int
    images: tuple[PreviewedImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewFailed(Message):
    """The whole request failed. `code` is a canonical status name."""

    code: str
    reason: str
    message: str
