"""The worker's end of the link, which blocks."""

from __future__ import annotations

import socket
import threading

from manyview_server.link.frames import MAX_ANSWER_BYTES, PREFIX, LinkClosed, check_lengths, decode, frame
from manyview_server.messages.message import Message


class Link:
    """The worker's end. `send` may be called from any thread, `receive` from one."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send_lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send one message whole. Raises LinkClosed, and MessageTooLarge before anything is sent."""
        pieces = frame(message, MAX_ANSWER_BYTES)
        try:
            with self._send_lock:
                for piece in pieces:
                    self._socket.sendall(piece)
        except OSError as error:
            raise LinkClosed(str(error)) from error

    def receive(self) -> Message:
        """The next message; waits for it. The front's death ends the wait: LinkClosed."""
        header_bytes, blob_bytes = PREFIX.unpack(self._exactly(PREFIX.size))
        check_lengths(header_bytes, blob_bytes)
        header = self._exactly(header_bytes)
        return decode(header, self._exactly(blob_bytes))

    def _exactly(self, count: int) -> bytes:
        data = bytearray(count)
        view, received = memoryview(data), 0
        while received < count:
            try:
                n = self._socket.recv_into(view[received:])
            except OSError as error:
                raise LinkClosed(str(error)) from error
            if n == 0:
                raise LinkClosed(f"end of stream after {received} of {count} bytes")
            received += n
        return bytes(data)

    def close(self) -> None:
        """Close the socket: the other end sees the end of the stream."""
        self._socket.close()
