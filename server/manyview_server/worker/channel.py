"""The worker's end of the link. A worker whose front is gone has nobody to work for, and ends at once."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import DecodeNotes
from manyview_server.link.frames import LinkClosed, LinkCorrupt
from manyview_server.messages.message import Message

EXIT_ORPHANED = 75


class Sender(Protocol):
    """Anything that takes messages for the front."""

    def send(self, message: Message) -> None:
        """Send one message."""


class WorkerChannel:
    """Sends from any thread; hears in a thread of its own."""

    def __init__(self, link: Link, notes: DecodeNotes | None = None) -> None:
        """`notes`: where the front reads what the worker is working on."""
        self._link = link
        self.notes = notes

    def send(self, message: Message) -> None:
        """Send one message. Does not return when the front is gone. Raises MessageTooLarge."""
        try:
            self._link.send(message)
        except LinkClosed:
            os._exit(EXIT_ORPHANED)

    def receive(self) -> Message:
        """The next message. Does not return when the front is gone."""
        try:
            return self._link.receive()
        except LinkClosed:
            os._exit(EXIT_ORPHANED)
        except LinkCorrupt as error:
            print(f"link: {error}", file=sys.stderr, flush=True)
            os._exit(EXIT_ORPHANED)

    def listen(self, handle: Callable[[Message], None]) -> None:
        """Start a thread that passes each message to `handle`."""

        def hear() -> None:
            while True:
                handle(self.receive())

        threading.Thread(target=hear, name="link", daemon=True).start()
