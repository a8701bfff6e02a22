"""A real worker process at the end of a socketpair, and small data sets on disk for it."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from manyview_server.learn import methods
from manyview_server.link import decode_notes
from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.link.fork_requests import WorkerDescriptors
from manyview_server.link.frames import LinkClosed
from manyview_server.messages.message import Message
from manyview_server.messages.training import StartTraining
from manyview_server.store.images.shard_writers import ShardWriter
from manyview_server.store.images.shards import SNAPSHOT_DTYPE, image_id_of
from support.learning import forked

TIMEOUT_S = 45.0
SMALL: dict[str, Any] = {
    "backbone": "resnet9",
    "backbone_width": 0.125,
    "image_size": 16,
    "batch_size": 16,
    "epochs": 2,
    "log_every_steps": 1,
}
"""The smallest network, on 16 x 16 pixels."""
MessageType = TypeVar("MessageType", bound=Message)


class Worker:
    """A forked worker. Every wait for a message ends after `TIMEOUT_S`."""

    def __init__(self, kind: str) -> None:
        ours, theirs = socket.socketpair()
        notes_fd = decode_notes.allocate()
        self.notes = DecodeNotes(notes_fd)
        with theirs:
            ends = WorkerDescriptors(link=theirs.fileno(), notes=notes_fd, stdout=1, stderr=2)
            self.process = forked.fork(kind, ends)
        os.close(notes_fd)
        ours.settimeout(TIMEOUT_S)
        self.link = Link(ours)
        self.received: list[Message] = []

    def send(self, message: Message) -> None:
        self.link.send(message)

    def until(self, kind: type[MessageType], fits: Callable[[Any], bool] = lambda _: True) -> MessageType:
        """Return the next message of that kind that fits. Earlier messages are kept in `received`."""
        while True:
            message = self.link.receive()
            self.received.append(message)
            if isinstance(message, kind) and fits(message):
                return message

    def of(self, kind: type[MessageType]) -> list[MessageType]:
        return [message for message in self.received if isinstance(message, kind)]

    def close(self) -> int:
        """Close the link. The worker then exits by itself."""
        self.link.close()
        try:
            return self.process.wait(timeout=10)
        finally:
            self.process.kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.link.close()


def drain(link: Link) -> None:
    """Read and discard messages, in a thread."""

    def read() -> None:
        try:
            while True:
                link.receive()
        except LinkClosed:
            pass

    threading.Thread(target=read, daemon=True).start()


def picture(label: int, seed: int, side: int = 16) -> np.ndarray[Any, Any]:
    """Draw a bright bar on noise. The label gives its direction and place, so that a network can separate the
    classes."""
    generator = np.random.default_rng(1000 * label + seed)
    pixels = generator.integers(0, 60, (side, side, 3), dtype=np.uint8)
    at = 2 + 3 * (label // 2) % (side - 4)
    color = generator.integers(150, 256, 3)
    if label % 2:
        pixels[at : at + 3] = color
    else:
        pixels[:, at : at + 3] = color
    return pixels


def encoded(pixels: np.ndarray[Any, Any], kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_dataset(directory: Path, images: list[tuple[bytes, int]]) -> np.ndarray[Any, Any]:
    """Write images (bytes, label) as a shard, and return the snapshot."""
    directory.mkdir(parents=True, exist_ok=True)
    writer = ShardWriter(directory)
    rows = np.zeros(len(images), SNAPSHOT_DTYPE)
    for row, (data, label) in zip(rows, images, strict=True):
        digest = hashlib.sha256(data).digest()
        image_id = image_id_of(digest)
        place = writer.append(image_id, "png", data, {"sha256": digest.hex(), "key": "", "label": str(label)})
        row["image_id"], row["label"], row["length"] = image_id, label, len(data)
        row["shard"], row["offset"] = place
        row["width"] = row["height"] = 16
    writer.sync()
    writer.close()
    return rows


def digits(count: int, classes: int = 4) -> list[tuple[bytes, int]]:
    return [(encoded(picture(i % classes, i)), i % classes) for i in range(count)]


def settings(method: str = "moco", **overrides: Any) -> dict[str, Any]:
    """Return a job that takes a second: the smallest network on 16 x 16 pixels."""
    evaluation = {"knn_every_epochs": 1, "knn_k": 5, "knn_holdout_fraction": 0.3}
    return methods.to_json(
        methods.resolve(method, SMALL | {"projection_dim": 16, "evaluation": evaluation} | overrides)
    )


def start_training(
    directory: Path, snapshot: np.ndarray[Any, Any], values: dict[str, Any], **other: Any
) -> StartTraining:
    fields: dict[str, Any] = {
        "train_job": "job",
        "attempt": 1,
        "settings": values,
        "dataset_dir": str(directory / "dataset"),
        "checkpoint_dir": str(directory / "checkpoints"),
        "resume_from": "",
        "device": "cpu",
        "num_threads": 1,
        "cache_bytes": 1 << 30,
        "blobs": (snapshot.tobytes(),),
    }
    return StartTraining(**{**fields, **other})
