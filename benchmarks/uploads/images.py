"""The images that are sent, and the messages in which the SDK sends them."""

from __future__ import annotations

import shutil
import struct
import tempfile
import zlib
from pathlib import Path

from benchmarks.large_data.beyond_memory import with_comment

from manyview._types.server import Limits
from manyview._uploads.batcher import Batcher
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.window import Window
from manyview.v1 import dataset_service_pb2 as pb

FOLDER = Path(tempfile.gettempdir()) / "manyview-uploads"
NUM_IMAGES = {"photographs": 3_068, "small": 20_000}
SMALL_BYTES = 2_048
BATCH_IMAGES = 256


def write_images(kind: str, source: Path) -> None:
    """Write the folder of images, unless an earlier call has."""
    folder = FOLDER / kind
    if folder.exists():
        return
    unfinished = folder.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    files = [path.read_bytes() for path in sorted(source.rglob("*.jp*g"))] if kind == "photographs" else []
    for number in range(NUM_IMAGES[kind]):
        data = with_comment(files[number % len(files)], f"{number:08d}".encode()) if files else small_image(number)
        path = unfinished / f"{number % 10}" / f"{number:06d}{'.jpg' if files else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    unfinished.rename(folder)


def small_image(number: int) -> bytes:
    """Return a PNG of 2 KB, 25 x 25 pixels, that differs from all others."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    row = bytes(1) + number.to_bytes(4, "big") + bytes(range(71))
    pixels = chunk(b"IHDR", struct.pack(">IIBBBBB", 25, 25, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(row * 25, 0))
    image = b"\x89PNG\r\n\x1a\n" + pixels
    return image + chunk(b"tEXt", b"Comment\0".ljust(SMALL_BYTES - len(image) - 24, b" ")) + chunk(b"IEND", b"")


def read_images(kind: str) -> list[tuple[str, bytes]]:
    """Return the key and the bytes of each image, in the order in which a folder is sent."""
    paths = sorted((FOLDER / kind).rglob("*.*"))
    return [(path.relative_to(FOLDER / kind).as_posix(), path.read_bytes()) for path in paths]


def messages(kind: str) -> list[pb.UploadImagesRequest]:
    """Return the batches that the SDK sends for these images."""
    limits = Limits(
        max_message_bytes=1 << 25, max_image_bytes=1 << 25, max_image_pixels=0, max_image_side=0,
        max_batch_images=BATCH_IMAGES,
    )  # fmt: skip
    batcher, window, found = Batcher(limits), Window(), []
    for key, data in read_images(kind):
        batcher.add(EncodedImage(key, data, key.partition("/")[0]))
    batcher.close()
    while (batch := batcher.take()) is not None:
        window.add(batch)
        taken = window.take()
        assert taken is not None
        found.append(pb.UploadImagesRequest.FromString(taken.message))
        window.ack(taken.number)
    return found


def num_bytes(kind: str) -> int:
    """Return the bytes of all images."""
    return sum(path.stat().st_size for path in (FOLDER / kind).rglob("*.*"))
