"""The worker's end of the link, with blocking calls."""

from __future__ import annotations

import socket
import threading

from manyview_server.link.frames import MAX_ANSWER_BYTES, PREFIX, LinkClosed, check_lengths, decode, frame
from manyview_server.messages.message import Message


class Link:
    """The worker's end of the link. Any thread may call `send`, and one thread may call `receive`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._send_lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message. Raises LinkClosed, or MessageTooLarge before anything is sent."""
        pieces = frame(message, MAX_ANSWER_BYTES)
        try:
            with self._send_lock:
                for piece in pieces:
                    self._socket.sendall(piece)
        except OSError as error:
            raise LinkClosed(str(error)) from error

    def receive(self) -> Message:
        """Wait for the next message, and return it. Raises LinkClosed if the front dies, and LinkCorrupt."""
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
        """Close the socket. The other end sees the end of the stream."""
        self._socket.close()
