"""A scripted previewer."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from manyview_server.link.blocking import Link
from manyview_server.link.decode_notes import DECODE, QUARANTINE, TOO_SLOW, DecodeNotes
from manyview_server.messages.embedding import (
    CancelEmbed,
)
from manyview_server.messages.preview import PreviewDone, PreviewedImage, PreviewFailed, PreviewImages
from support.workers.behaviour import burn, hello, rest_of_the_day


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
