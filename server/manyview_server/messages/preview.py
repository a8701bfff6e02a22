"""Messages between the front and a previewer."""

from __future__ import annotations

from dataclasses import dataclass

from manyview_server.messages.message import Json, Message

# ---- front to previewer ----


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewImages(Message):
    """Make the views of `blobs`, one encoded image each, as a job with these settings does in this epoch. An empty blob
    is an image that was refused already."""

    settings: dict[str, Json]
    epoch: int
    # Of the reply's images together, before compression.
    max_pixel_bytes: int
    # Which of the images took a decoder too long: not to be decoded.
    too_slow: tuple[int, ...] = ()


# ---- previewer to front ----


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedView:
    """One view of one image. `parameters` is what `learn.views.replay.told` says."""

    pipeline: int
    size: int
    parameters: dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedImage:
    """An image and its views; or the reason why there are none."""

    reason: str = ""
    message: str = ""
    image_id: int = 0
    width: int = 0
    height: int = 0
    views: tuple[PreviewedView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewDone(Message):
    """`blobs`: of each image that could be read a PNG of itself, and one of each of its views."""

    decode_size: int
    images: tuple[PreviewedImage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewFailed(Message):
    """No views at all. `code` is a canonical status name."""

    code: str
    reason: str
    message: str
