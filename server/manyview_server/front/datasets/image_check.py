"""Check an image without decoding it: its key, label, size, checksum and header. A bad image is refused alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from manyview.v1 import types_pb2
from manyview_server.counted_noun import number_of
from manyview_server.front.datasets.received_batch import ReceivedImage
from manyview_server.front.limits import ImageLimits
from manyview_server.image_header import HeaderRefused, ImageHeader, read_header
from manyview_server.store.records import CheckedImage, RejectedImage

MAX_TEXT_BYTES = 1024
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class ImageRefused(ValueError):
    """An image is refused. `reason` is one of the reasons of `ImageError`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


def check_upload(
    images: Iterable[types_pb2.Image | ReceivedImage], limits: ImageLimits
) -> list[CheckedImage | RejectedImage]:
    """Check the images of a batch. Call it off the event loop, because it hashes them."""
    return [_checked(image, limits) for image in images]


def check_embed(image: types_pb2.Image, limits: ImageLimits) -> ImageRefused | None:
    """Return why an image is refused, or None if it may be decoded.

    The checksum is compared only if the caller sent one. Call it off the event loop, because it hashes the image.
    """
    data, sent = image.data, image.sha256  # each access to a field of a message copies it
    try:
        _check_text("key", image.key)
        _check_text("label", image.label)
        _check_size(data, limits)
        if sent:
            _check_sum(sent, hashlib.sha256(data).digest())
        _check_header(data, limits)
    except ImageRefused as refused:
        return refused
    return None


def _checked(image: types_pb2.Image | ReceivedImage, limits: ImageLimits) -> CheckedImage | RejectedImage:
    # Each access to a field of a message copies it.
    data, key, label, sent = image.data, image.key, image.label, image.sha256
    digest = hashlib.sha256(data).digest()
    try:
        _check_text("key", key)
        _check_text("label", label)
        _check_size(data, limits)
        _check_sum(sent, digest)
        header = _check_header(data, limits)
    except ImageRefused as refused:
        return RejectedImage(
            key=_presentable(key),
            label=_presentable(label),
            # The chain of digests covers the images as the client holds them.
            sha256=sent if len(sent) == 32 else digest,
            reason=refused.reason,
            message=refused.message,
            num_bytes=len(data),
        )
    return CheckedImage(
        # The copy was for the checks. What waits for the disk stays in the message.
        data=image.view if isinstance(image, ReceivedImage) else data,
        key=key,
        label=label,
        sha256=digest,
        extension=header.extension,
        width=header.width,
        height=header.height,
    )


def _check_text(name: str, text: str) -> None:
    num_bytes = len(text.encode())
    if num_bytes > MAX_TEXT_BYTES:
        raise ImageRefused(
            f"{name.upper()}_INVALID", f"the {name} has {num_bytes:,} bytes; at most {MAX_TEXT_BYTES:,} are allowed"
        )
    if CONTROL.search(text):
        raise ImageRefused(f"{name.upper()}_INVALID", f"the {name} has control characters")


def _check_size(data: bytes, limits: ImageLimits) -> None:
    if not data:
        raise ImageRefused("IMAGE_EMPTY", "the image has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageRefused("IMAGE_TOO_LARGE", f"{len(data):,} bytes; at most {limits.max_bytes:,} are allowed")


def _check_sum(sent: bytes, digest: bytes) -> None:
    if len(sent) != 32:
        raise ImageRefused("CHECKSUM_MISMATCH", f"sha256 has {number_of(len(sent), 'byte')}; it must have 32")
    if sent != digest:
        raise ImageRefused("CHECKSUM_MISMATCH", f"the bytes hash to {digest.hex()}, not to {sent.hex()}")


def _check_header(data: bytes, limits: ImageLimits) -> ImageHeader:
    try:
        header = read_header(data)
    except HeaderRefused as refused:
        raise ImageRefused(refused.reason, str(refused)) from refused
    size = f"{header.width:,} x {header.height:,} pixels"
    if max(header.width, header.height) > limits.max_side:
        raise ImageRefused("SIDE_TOO_LONG", f"{size}; a side may have at most {limits.max_side:,}")
    if header.width * header.height > limits.max_pixels:
        raise ImageRefused("TOO_MANY_PIXELS", f"{size}; at most {limits.max_pixels:,} are allowed")
    return header


def _presentable(text: str) -> str:
    """Return the text of a refused image without control characters, cut to the allowed length."""
    return CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore"))
