"""A scripted embedder."""

from __future__ import annotations

import math
import os
import signal
import struct
import sys
import threading
import time
from typing import Any

from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import DECODE, FORWARD, DecodeNotes
from manyview_server.messages.embedding import (
    CancelEmbed,
    EmbedDone,
    EmbedFailed,
    EmbedImages,
    RowFailed,
    SetThreads,
    StartEmbedding,
)
from support.workers.behaviour import SNAPSHOT_ROW, burn, hello, rest_of_the_day, too_slow


class Embedder:
    """Each image is embedded as its length; images that begin with b"die", b"slow" or b"hang" do so.

    There is no note of what these do. Images that begin with b"note die", b"note hang" or b"burn" do it in a decoder,
    and one that begins with b"forward hang" in a pass of the network. b"burn" uses CPU time for ever.
    """

    def __init__(self, link: Link, behaviour: Any, notes: DecodeNotes) -> None:
        self.link = link
        self.notes = notes
        self.plan: dict[str, Any] = {} if behaviour == "normal" else behaviour
        self.num_threads = 0
        self.cancelled = 0
        self.is_dying = False

    def run(self) -> None:
        if self.plan.get("die") == "at once":
            print("no such library", file=sys.stderr)
            os._exit(1)
        if self.plan.get("no_hello"):
            rest_of_the_day()
        hello(self.link)
        if self.plan.get("deaf"):
            rest_of_the_day()
        while True:
            match self.link.receive():
                case StartEmbedding(num_threads=num_threads) | SetThreads(num_threads=num_threads):
                    self.num_threads = num_threads
                case CancelEmbed(request_id=request_id):
                    self.cancelled += 1
                    gone: dict[str, Any] = {
                        "code": "CANCELLED",
                        "reason": "CANCELLED",
                        "message": "the caller has gone",
                    }
                    self.link.send(EmbedFailed(request_id=request_id, **gone))
                case EmbedImages() as request:
                    self.is_dying |= request.blobs[0].startswith(b"die")
                    threading.Thread(target=self.embed, args=(request,), daemon=True).start()

    def embed(self, request: EmbedImages) -> None:
        if request.dataset_dir:
            self.embed_stored(request)
            return
        for row, blob in enumerate(request.blobs):
            if row not in request.too_slow:
                self.decode(request.request_id, row, blob)
        first = request.blobs[0]
        if first.startswith(b"forward hang"):
            with self.notes.task(FORWARD):
                rest_of_the_day()
        if first.startswith(b"die"):
            os.kill(os.getpid(), signal.SIGSEGV)
            rest_of_the_day()
        if first.startswith(b"hang"):
            rest_of_the_day()
        if first.startswith(b"slow"):
            time.sleep(0.3)
            if self.is_dying:  # a busy machine may let this thread run first
                rest_of_the_day()
        if first.startswith(b"corrupt"):
            failed: dict[str, Any] = {
                "code": "DATA_LOSS",
                "reason": "CHECKPOINT_CORRUPT",
                "message": "its hash differs",
            }
            self.link.send(EmbedFailed(request_id=request.request_id, **failed))
            return
        told = {b"threads": self.num_threads, b"cancelled": self.cancelled, b"pid": os.getpid()}
        numbers = b"".join(told.get(blob, len(blob)).to_bytes(4, "little") for blob in request.blobs)
        self.link.send(
            EmbedDone(
                request_id=request.request_id,
                shape=(len(request.blobs), 1),
                errors=tuple(too_slow(row) for row in request.too_slow),
                queue_ms=0.0,
                decode_ms=0.0,
                forward_ms=0.0,
                batch_images=len(request.blobs),
                blobs=(numbers,),
            )
        )

    def decode(self, request_id: int, row: int, blob: bytes) -> None:
        if not blob.startswith((b"note ", b"burn")):
            return
        with self.notes.task(DECODE, request=request_id, item=row):
            if blob.startswith(b"note late die"):
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGSEGV)
            if blob.startswith(b"note die"):
                os.kill(os.getpid(), signal.SIGSEGV)
                rest_of_the_day()
            if blob.startswith(b"note hang"):
                rest_of_the_day()
            if blob.startswith(b"burn"):
                burn()

    def embed_stored(self, request: EmbedImages) -> None:
        """An image's row is its id, or the behaviour's.

        {"crashing": [ids], "burn": [ids], "unreadable": [ids], "reason": of these, "image_s": seconds}
        """
        ids = [fields[0] for fields in SNAPSHOT_ROW.iter_unpack(b"".join(request.blobs))]
        time.sleep(self.plan.get("image_s", 0.0) * len(ids))
        if set(ids) & set(self.plan.get("crashing", ())) - set(request.quarantined):
            os.kill(os.getpid(), signal.SIGSEGV)
            rest_of_the_day()
        for row, image_id in enumerate(ids):
            if image_id in self.plan.get("burn", ()) and row not in request.too_slow:
                with self.notes.task(DECODE, request=request.request_id, item=row):
                    burn()
        reason = self.plan.get("reason", "DECODE_FAILED")
        bad = {row for row, image_id in enumerate(ids) if image_id in self.plan.get("unreadable", ())}
        numbers = [math.nan if row in bad else float(image_id) for row, image_id in enumerate(ids)]
        self.link.send(
            EmbedDone(
                request_id=request.request_id,
                shape=(len(ids), 1),
                errors=(
                    *(RowFailed(row=row, reason=reason, message="torn") for row in sorted(bad)),
                    *(too_slow(row) for row in request.too_slow),
                ),
                queue_ms=0.0,
                decode_ms=0.0,
                forward_ms=0.0,
                batch_images=len(ids),
                blobs=(struct.pack(f"<{len(ids)}f", *numbers),),
            )
        )
