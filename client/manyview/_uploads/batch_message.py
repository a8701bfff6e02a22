"""The bytes of a message with a batch of images, which are copied once, when the message is sent.

The protobuf library would copy the file of an image twice: into a message, and from there to the bytes that are sent.
So this module writes the wire format itself (https://protobuf.dev/programming-guides/encoding). A field is its tag,
its length and its content, and an empty field is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from manyview._uploads.encoded_image import EncodedImage
from manyview.v1 import dataset_service_pb2, types_pb2


def _tag(number: int) -> bytes:
    """Return the tag of a field with a length."""
    return _varint(number << 3 | 2)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return number.to_bytes(1, "little")
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


BATCH = _tag(dataset_service_pb2.UploadImagesRequest.BATCH_FIELD_NUMBER)
NUMBER = _varint(types_pb2.ImageBatch.NUMBER_FIELD_NUMBER << 3)
IMAGE = _tag(types_pb2.ImageBatch.IMAGES_FIELD_NUMBER)
DATA = _tag(types_pb2.Image.DATA_FIELD_NUMBER)
KEY = _tag(types_pb2.Image.KEY_FIELD_NUMBER)
LABEL = _tag(types_pb2.Image.LABEL_FIELD_NUMBER)
SHA256 = _tag(types_pb2.Image.SHA256_FIELD_NUMBER)


def batch_pieces(number: int, images: Sequence[EncodedImage]) -> list[bytes]:
    """Return the bytes of an UploadImagesRequest with this batch, in pieces to join. The images are not copied."""
    pieces = [b"", NUMBER, _varint(number)]
    for image in images:
        head = DATA + _varint(len(image.data)) if image.data else b""
        behind = _field(KEY, image.key.encode()) + _field(LABEL, image.label.encode()) + _field(SHA256, image.sha256)
        size = len(head) + len(image.data) + len(behind)
        pieces += (IMAGE + _varint(size) + head, image.data, behind)
    pieces[0] = BATCH + _varint(sum(map(len, pieces)))
    return pieces


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content if content else b""
