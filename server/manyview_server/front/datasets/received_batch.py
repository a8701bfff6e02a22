"""Read the batch of an upload from the bytes of its message, in the form in which the SDK writes it.

The protobuf library needs two copies of each image, one into the message and one out of it, and the check of the
limits walks over the bytes before. This reader does both in one walk with one copy. It accepts only messages whose
fields are in order, at most once each and within the limits. All others go to the check and to the library, which
accept the same batches, and say what is wrong with the rest.
"""

from __future__ import annotations

from typing import NamedTuple

from manyview.v1 import dataset_service_pb2 as pb
from manyview.v1 import types_pb2
from manyview_server.front.rpc.request_limits import FIELD_LIMITS

# A tag is the number of a field and its wire type. All of these fit into one byte.
VARINT, DELIMITED = 0, 2
BATCH = pb.UploadImagesRequest.BATCH_FIELD_NUMBER << 3 | DELIMITED
NUMBER = types_pb2.ImageBatch.NUMBER_FIELD_NUMBER << 3 | VARINT
IMAGE = types_pb2.ImageBatch.IMAGES_FIELD_NUMBER << 3 | DELIMITED
DATA = types_pb2.Image.DATA_FIELD_NUMBER << 3 | DELIMITED
KEY = types_pb2.Image.KEY_FIELD_NUMBER << 3 | DELIMITED
LABEL = types_pb2.Image.LABEL_FIELD_NUMBER << 3 | DELIMITED
SHA256 = types_pb2.Image.SHA256_FIELD_NUMBER << 3 | DELIMITED

MAX_IMAGES = 512
"""This many images take about 2 ms, in which the event loop does nothing else. The walk over more pauses in between."""
MAX_TEXT_BYTES = min(FIELD_LIMITS[f"manyview.v1.Image.{name}"].bytes or 0 for name in ("key", "label"))
MAX_SHA256_BYTES = 32
MAX_SHIFT = 56
"""Numbers of 63 bits have nine groups of seven bits."""


class ReceivedImage(NamedTuple):
    """An image as it was sent: the fields of `Image`, with the place of its bytes in the message."""

    message: bytes
    start: int
    end: int
    key: str
    label: str
    sha256: bytes

    @property
    def data(self) -> bytes:
        """A copy of the image's bytes."""
        return self.message[self.start : self.end]

    @property
    def view(self) -> memoryview:
        """The image's bytes within the message."""
        return memoryview(self.message)[self.start : self.end]


class ReceivedBatch(NamedTuple):
    """A batch as it was sent, and the size of its message."""

    number: int
    images: list[ReceivedImage]
    num_bytes: int


def read_batch(message: bytes) -> ReceivedBatch | None:
    """Return the batch in the bytes of an UploadImagesRequest, or None if this reader does not accept them."""
    try:
        return _read(message)
    except (IndexError, ValueError):  # the message ends early, a number is too long, or a text is not UTF-8
        return None


def _read(message: bytes) -> ReceivedBatch | None:
    if message[0] != BATCH:
        return None
    size, at = _varint(message, 1)
    whole = len(message)
    if at + size != whole or message[at] != NUMBER:
        return None
    number, at = _varint(message, at + 1)
    images: list[ReceivedImage] = []
    while at < whole:
        if message[at] != IMAGE or len(images) == MAX_IMAGES:
            return None
        size, at = _varint(message, at + 1)
        end = at + size
        start = at
        if at < end and message[at] == DATA:
            size, start = _varint(message, at + 1)
            at = start + size
        data_end = at
        key, at = _field(message, at, end, KEY)
        label, at = _field(message, at, end, LABEL)
        sha256, at = _field(message, at, end, SHA256)
        too_long = len(key) > MAX_TEXT_BYTES or len(label) > MAX_TEXT_BYTES or len(sha256) > MAX_SHA256_BYTES
        if at != end or too_long:
            return None
        images.append(ReceivedImage(message, start, data_end, key.decode(), label.decode(), sha256))
    return ReceivedBatch(number, images, whole) if at == whole else None


def _field(message: bytes, at: int, end: int, tag: int) -> tuple[bytes, int]:
    """Return the content of a field and the position behind it, or nothing if another field or none is at `at`."""
    if at >= end or message[at] != tag:
        return b"", at
    size, at = _varint(message, at + 1)
    return message[at : at + size], at + size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Read a number. Return it and the position behind it."""
    byte = message[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while (byte := message[at + 1]) >= 0x80 and shift < MAX_SHIFT:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    if byte >= 0x80:
        raise ValueError("a number is too long")
    return number | byte << shift, at + 2
