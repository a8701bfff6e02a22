"""The front's end of the link, on the event loop."""

from __future__ import annotations

import asyncio
import socket

from manyview_server.link.frames import (
    LONG_BYTES,
    MAX_ANSWER_BYTES,
    MAX_BLOB_BYTES,
    PART_BYTES,
    PREFIX,
    LinkClosed,
    check_lengths,
    decode,
    frame,
    is_long,
)
from manyview_server.messages.message import Message


class AsyncLink:
    """The front's end of the link, over asyncio streams. `send` waits while the worker's buffer is full."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._send_lock = asyncio.Lock()
        self._writing: set[asyncio.Future[None]] = set()

    @classmethod
    async def over(cls, sock: socket.socket) -> AsyncLink:
        """Take over a connected socket."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock)
        return cls(reader, writer)

    async def send(self, message: Message) -> None:
        """Send a message. Raises LinkClosed, or MessageTooLarge before anything is sent."""
        if is_long(message):
            pieces = await asyncio.to_thread(frame, message, MAX_BLOB_BYTES)
        else:
            pieces = frame(message, MAX_BLOB_BYTES)
        if sum(map(len, pieces)) <= PART_BYTES and not self._send_lock.locked():
            await self._write_at_once(pieces)
            return
        # If the caller is cancelled in the middle of a frame, the rest of the frame must still be sent.
        writing = asyncio.ensure_future(self._write(pieces))
        self._writing.add(writing)
        writing.add_done_callback(self._written)
        await asyncio.shield(writing)

    async def _write_at_once(self, pieces: list[bytes]) -> None:
        """Write a short frame without a task of its own, while nobody else is writing."""
        try:
            self._writer.writelines(pieces)
            await self._writer.drain()
        except OSError as error:
            raise LinkClosed(str(error)) from error

    async def _write(self, pieces: list[bytes]) -> None:
        try:
            async with self._send_lock:
                for piece in pieces:
                    for start in range(0, len(piece), PART_BYTES):
                        self._writer.write(memoryview(piece)[start : start + PART_BYTES])
                        await self._writer.drain()
        except OSError as error:
            raise LinkClosed(str(error)) from error

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            writing.exception()  # the sender gets it, if it still waits

    async def receive(self) -> Message:
        """Return the next message. Raises LinkClosed at the end of the stream, and LinkCorrupt."""
        try:
            header_bytes, blob_bytes = PREFIX.unpack(await self._reader.readexactly(PREFIX.size))
            check_lengths(header_bytes, blob_bytes, MAX_ANSWER_BYTES)
            header = await self._reader.readexactly(header_bytes)
            body = bytearray(blob_bytes)
            for start in range(0, blob_bytes, PART_BYTES):
                end = min(start + PART_BYTES, blob_bytes)
                body[start:end] = await self._reader.readexactly(end - start)
            if header_bytes + blob_bytes <= LONG_BYTES:
                return decode(header, body)
            return await asyncio.to_thread(decode, header, body)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise LinkClosed(str(error)) from error

    def close(self) -> None:
        """Close the socket. The worker sees the end of the stream and exits."""
        self._writer.close()
