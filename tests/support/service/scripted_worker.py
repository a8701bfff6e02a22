"""A worker of a few lines for the tests of supervise: `scripted_worker.py SCRIPT KIND --link-fd N --notes-fd M`.

SCRIPT is a JSON object: {"trainer": BEHAVIOUR, "embedder": …, "previewer": …, "selector": …, "describe": TEXT,
"once_file": PATH}. By `once_file` the behaviour is a list of which each start takes the next one, the last for ever.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import ALONE, DECODE, FORWARD, QUARANTINE, TOO_SLOW, DecodeNotes
from manyview_server.link.frames import LinkClosed
from manyview_server.messages.embedding import (
    CancelEmbed,
    EmbedDone,
    EmbedFailed,
    EmbedImages,
    RowFailed,
    SetThreads,
    StartEmbedding,
)
from manyview_server.messages.message import Hello
from manyview_server.messages.preview import PreviewDone, PreviewedImage, PreviewFailed, PreviewImages
from manyview_server.messages.selection import RowsSelected, SelectionFailed, SelectRows
from manyview_server.messages.training import (
    AlertRaised,
    CheckpointWritten,
    Heartbeat,
    ImagesAdded,
    ImageUnreadable,
    LogWritten,
    Outcome,
    ScalarsLogged,
    SnapshotAdopted,
    StartTraining,
    StopTraining,
    TrainingEnded,
    TrainingStarted,
)
from manyview_server.store.images.shards import SNAPSHOT_DTYPE
from manyview_server.store.jobs import checkpoints


def main() -> None:
    script = json.loads(sys.argv[1])
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("--link-fd", type=int)
    parser.add_argument("--notes-fd", type=int)
    parsed, _ = parser.parse_known_args(sys.argv[2:])
    behaviour = script.get(parsed.kind, "normal")
    if isinstance(behaviour, list):
        behaviour = behaviour[min(starts(Path(script["once_file"])), len(behaviour) - 1)]
    link = Link(socket.socket(fileno=parsed.link_fd))
    notes = DecodeNotes(parsed.notes_fd)
    try:
        if parsed.kind == "describe":
            print(behaviour)
        elif parsed.kind == "trainer":
            Trainer(link, behaviour, notes).run()
        elif parsed.kind == "selector":
            Selector(link, behaviour).run()
        elif parsed.kind == "previewer":
            preview(link, behaviour, notes)
        else:
            Embedder(link, behaviour, notes).run()
    except LinkClosed:
        os._exit(3)


def starts(path: Path) -> int:
    """Count this start, and return the number of earlier ones."""
    before = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (before + 1))
    return before


def hello(link: Link) -> None:
    link.send(Hello(pid=os.getpid(), versions={"worker": "scripted"}))


def rest_of_the_day() -> None:
    while True:
        time.sleep(3600)


def burn() -> None:
    """Use CPU time until somebody ends the process."""
    while True:
        pass


class Trainer:
    """Behaviours: "normal" or {"steps", "step_s", "die_at", "silent_at", "stuck_at", "checkpoint_every", "fail", …}."""

    def __init__(self, link: Link, behaviour: Any, notes: DecodeNotes) -> None:
        self.link = link
        self.notes = notes
        self.plan: dict[str, Any] = {} if behaviour == "normal" else behaviour
        self.stop = threading.Event()
        self.step = 0
        self.num_steps = int(self.plan.get("steps", 4))

    def run(self) -> None:
        if self.plan.get("die") == "at once":
            print("no such library", file=sys.stderr)
            os._exit(1)
        if self.plan.get("no_hello"):
            rest_of_the_day()
        hello(self.link)
        if self.plan.get("no_read"):
            rest_of_the_day()
        start = self.link.receive()
        assert isinstance(start, StartTraining)
        self.start = start
        self.step = self.resumed_step(self.start.resume_from)
        self.num_images = len(b"".join(self.start.blobs)) // SNAPSHOT_DTYPE.itemsize
        if self.plan.get("reports"):
            adopted = [adoption.num_images for adoption in self.start.adoptions]
            text = f"follows {self.start.follows}, {self.num_images} images, adopted {adopted}"
            self.link.send(LogWritten(step=self.step, epoch=0, level="info", text=text))
        self.decode()
        threading.Thread(target=self.listen, daemon=True).start()
        if "before_start_s" in self.plan:
            time.sleep(self.plan["before_start_s"])
        resolved = self.plan.get("resolved", {})
        self.link.send(TrainingStarted(step=self.step, num_steps=self.num_steps, num_epochs=1, resolved=resolved))
        self.end(*self.train())

    @staticmethod
    def resumed_step(directory: str) -> int:
        if not directory:
            return 0
        checkpoints.verify(Path(directory))
        return int(json.loads((Path(directory) / "state.json").read_text())["step"])

    def decode(self) -> None:
        """Die of the images in {"crashing": [ids]} as decoders do, and never finish those in {"too_slow": [ids]}."""
        for image_id in self.plan.get("too_slow", ()):
            if image_id not in self.start.too_slow:
                with self.notes.task(DECODE, item=image_id):
                    burn()
        if not (self.start.suspects or self.plan.get("crashing")):
            return
        crashing = set(self.plan.get("crashing", ())) - set(self.start.quarantined)
        for image_id in self.start.suspects:
            with self.notes.task(ALONE, item=image_id):
                if image_id in crashing:
                    os.kill(os.getpid(), signal.SIGSEGV)
                    rest_of_the_day()
        if crashing:
            with self.notes.task(DECODE, item=min(crashing)):
                thread = threading.Thread(target=self.decode_and_die, args=(3,))
                thread.start()
                thread.join()

    def decode_and_die(self, image_id: int) -> None:
        with self.notes.task(DECODE, item=image_id):
            os.kill(os.getpid(), signal.SIGSEGV)
            rest_of_the_day()

    def listen(self) -> None:
        try:
            while True:
                message = self.link.receive()
                if isinstance(message, StopTraining) and not self.plan.get("ignore_stop"):
                    self.stop.set()
                if isinstance(message, ImagesAdded):
                    self.adopt(len(message.blobs[0]) // SNAPSHOT_DTYPE.itemsize)
        except LinkClosed:
            os._exit(3)

    def adopt(self, num_added: int) -> None:
        self.num_images += num_added
        self.link.send(SnapshotAdopted(step=self.step, epoch=0, num_images=self.num_images, num_added=num_added))

    def train(self) -> tuple[Outcome, str]:
        while self.step < self.num_steps:
            self.misbehave()
            if self.stop.wait(self.plan.get("step_s", 0.0)):
                self.checkpoint()
                return "stopped", ""
            self.step += 1
            self.heartbeat()
            self.link.send(ScalarsLogged(step=self.step, epoch=0, values={"loss": 1.0 / self.step}))
            if self.step % int(self.plan.get("checkpoint_every", 1000)) == 0:
                self.checkpoint()
        if reason := self.plan.get("fail"):
            return "failed", reason
        self.checkpoint()
        return "succeeded", ""

    def misbehave(self) -> None:
        here = self.step
        if here == self.plan.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if here == self.plan.get("slow_at"):
            time.sleep(self.plan["slow_s"])
        if here == self.plan.get("silent_at"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if here == self.plan.get("garbage_at"):
            os.write(self.link._socket.fileno(), bytes.fromhex(self.plan["garbage"]))
            rest_of_the_day()
        if here == self.plan.get("flood_at"):
            for _ in range(5):
                self.link.send(AlertRaised(step=1, epoch=0, reason="FLOOD", message="y" * 1_000_000))
            while True:
                self.link._socket.sendall(b"\xff" * 1_000_000)
        if here == self.plan.get("unreadable_at"):
            reason = self.plan.get("reason", "DECODE_FAILED")
            self.link.send(ImageUnreadable(image_id=self.plan["image_id"], reason=reason, message="broken"))
        while here == self.plan.get("stuck_at"):
            self.heartbeat()
            time.sleep(0.05)

    def heartbeat(self) -> None:
        place: dict[str, Any] = {"step": self.step, "num_steps": self.num_steps, "epoch": 0, "num_epochs": 1}
        self.link.send(Heartbeat(stage="training", eta_s=1.0, rss_bytes=1, **place))

    def checkpoint(self) -> None:
        directory = Path(self.start.checkpoint_dir) / checkpoints.name(self.step, self.start.attempt)
        manifest = checkpoints.write(
            directory,
            {
                checkpoints.BACKBONE: b"backbone",
                checkpoints.STATE: b"state",
                checkpoints.STATE_JSON: json.dumps({"step": self.step}).encode(),
            },
        )
        size = checkpoints.num_bytes(manifest)
        self.link.send(
            CheckpointWritten(step=self.step, epoch=0, directory=str(directory), num_bytes=size, model={"made": "up"})
        )

    def end(self, outcome: Outcome, reason: str) -> None:
        message, hint = ("it is said", "do otherwise") if reason else ("", "")
        self.link.send(
            TrainingEnded(outcome=outcome, step=self.step, epoch=0, reason=reason, message=message, hint=hint)
        )
        if self.plan.get("stay"):
            rest_of_the_day()


def preview(link: Link, behaviour: Any, notes: DecodeNotes) -> None:
    """Images b"die", b"hang", b"slow", b"stray" and b"refuse" make it do so; its process id is the `decode_size`.

    An image that begins with b"burn" uses CPU time for ever, wherever it stands.
    """
    if behaviour == "die at once":
        os._exit(1)
    if behaviour == "no hello":
        rest_of_the_day()
    hello(link)
    while True:
        request = link.receive()
        assert isinstance(request, PreviewImages)
        first = request.blobs[0]
        for row, blob in enumerate(request.blobs):
            if blob.startswith(b"burn") and row not in request.too_slow:
                with notes.task(DECODE, item=row):
                    burn()
        if first == b"die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if first in (b"die", b"hang"):
            rest_of_the_day()
        if first == b"slow":
            time.sleep(0.3)
        if first == b"stray":
            link.send(CancelEmbed(request_id=1))
        elif first == b"refuse":
            link.send(PreviewFailed(code="INVALID_ARGUMENT", reason="PREVIEW_TOO_LARGE", message="too large"))
        else:
            images = [PreviewedImage(width=len(blob)) for blob in request.blobs]
            for row in request.too_slow:
                images[row] = PreviewedImage(reason=TOO_SLOW, message=QUARANTINE[TOO_SLOW])
            link.send(PreviewDone(decode_size=os.getpid(), images=tuple(images)))


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

    def run(self) -> None:
        if self.plan.get("die") == "at once":
            print("no such library", file=sys.stderr)
            os._exit(1)
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
        if first.startswith(b"corrupt"):
            failed: dict[str, Any] = {
                "code": "DATA_LOSS",
                "reason": "CHECKPOINT_CORRUPT",
                "message": "its hash differs",
            }
            self.link.send(EmbedFailed(request_id=request.request_id, **failed))
            return
        told = {b"threads": self.num_threads, b"cancelled": self.cancelled, b"pid": os.getpid()}
        numbers = bytes(told.get(first, len(first)).to_bytes(4, "little"))
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
        ids = np.frombuffer(b"".join(request.blobs), SNAPSHOT_DTYPE)["image_id"]
        time.sleep(self.plan.get("image_s", 0.0) * len(ids))
        if set(ids.tolist()) & set(self.plan.get("crashing", ())) - set(request.quarantined):
            os.kill(os.getpid(), signal.SIGSEGV)
            rest_of_the_day()
        for row in np.flatnonzero(np.isin(ids, self.plan.get("burn", ()))).tolist():
            if row not in request.too_slow:
                with self.notes.task(DECODE, request=request.request_id, item=row):
                    burn()
        rows = ids.astype("<f4")[:, None]
        reason = self.plan.get("reason", "DECODE_FAILED")
        bad = np.flatnonzero(np.isin(ids, self.plan.get("unreadable", ())))
        rows[bad] = np.nan
        self.link.send(
            EmbedDone(
                request_id=request.request_id,
                shape=(len(ids), 1),
                errors=(
                    *(RowFailed(row=int(row), reason=reason, message="torn") for row in bad),
                    *(too_slow(row) for row in request.too_slow),
                ),
                queue_ms=0.0,
                decode_ms=0.0,
                forward_ms=0.0,
                batch_images=len(ids),
                blobs=(rows.tobytes(),),
            )
        )


def too_slow(row: int) -> RowFailed:
    return RowFailed(row=row, reason=TOO_SLOW, message=QUARANTINE[TOO_SLOW])


class Selector:
    """Answers with its process id and the number of threads; the strategy says otherwise."""

    def __init__(self, link: Link, behaviour: Any) -> None:
        self.link = link
        self.plan: dict[str, Any] = {} if behaviour == "normal" else behaviour

    def run(self) -> None:
        if self.plan.get("die") == "at once":
            print("no such library", file=sys.stderr)
            os._exit(1)
        hello(self.link)
        while True:
            request = self.link.receive()
            assert isinstance(request, SelectRows)
            match request.strategy:
                case "die":
                    print("it went wrong", file=sys.stderr, flush=True)
                    os.kill(os.getpid(), signal.SIGSEGV)
                case "hang":
                    rest_of_the_day()
                case "garbage":
                    os.write(self.link._socket.fileno(), b"x" * 100)
                case "fail":
                    self.link.send(SelectionFailed(code="INVALID_ARGUMENT", reason="NO", message="it cannot be done"))
                case _:
                    time.sleep(request.distance)
                    numbers = np.array([os.getpid(), request.source.num_threads], "<i8")
                    self.link.send(RowsSelected(blobs=(numbers.tobytes(), b"")))


if __name__ == "__main__":
    main()
