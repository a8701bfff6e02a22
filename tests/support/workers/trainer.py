"""A scripted trainer."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import ALONE, DECODE, DecodeNotes
from manyview_server.link.frames import LinkClosed
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
from manyview_server.store.jobs import checkpoints
from manyview_server.store.jobs.model_card import ModelCard
from support.workers.behaviour import SNAPSHOT_ROW, burn, hello, rest_of_the_day


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
        self.num_images = len(b"".join(self.start.blobs[:1])) // SNAPSHOT_ROW.size
        if self.plan.get("reports"):
            adopted = [adoption.num_images for adoption in self.start.adoptions]
            text = f"follows {self.start.follows}, {self.num_images} images, adopted {adopted}"
            self.link.send(LogWritten(step=self.step, epoch=0, level="info", text=text))
        self.decode()
        threading.Thread(target=self.listen, daemon=True).start()
        if decoding := self.plan.get("decoding"):
            done, total = decoding
            self.heartbeat("decoding", num_steps=0, images_done=done, images_total=total)
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
                    self.adopt(len(message.blobs[0]) // SNAPSHOT_ROW.size)
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
            if self.step % int(self.plan.get("log_every", 1)) == 0:
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

    def heartbeat(self, stage: str = "training", **changes: int) -> None:
        place: dict[str, Any] = {"step": self.step, "num_steps": self.num_steps, "epoch": 0, "num_epochs": 1}
        self.link.send(Heartbeat(stage=stage, eta_s=1.0, rss_bytes=1, **{**place, **changes}))

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
            CheckpointWritten(
                step=self.step, epoch=0, directory=str(directory), num_bytes=size, model=card(self.step).to_json()
            )
        )

    def end(self, outcome: Outcome, reason: str) -> None:
        message, hint = ("it is said", "do otherwise") if reason else ("", "")
        self.link.send(
            TrainingEnded(outcome=outcome, step=self.step, epoch=0, reason=reason, message=message, hint=hint)
        )
        if self.plan.get("stay"):
            rest_of_the_day()


def card(step: int) -> ModelCard:
    """Return the card of a network that gives one number for each image, as the scripted embedder does."""
    return ModelCard(
        train_job="scripted",
        step=step,
        epoch=0,
        method="simclr",
        backbone="resnet9",
        backbone_width=1.0,
        stem="small",
        stem_relu=True,
        patch_size=None,
        embedding_dim=0,
        feature_dim=1,
        projection_dim=0,
        transparency="white",
        color_profile="srgb",
        image_size=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
