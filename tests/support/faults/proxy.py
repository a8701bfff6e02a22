"""A TCP proxy between clients and a server on loopback that does what networks do: delay, narrow, cut off, swallow.

It runs in a thread of its own. Its methods may be called from any thread, and have taken effect when they return.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

CHUNK_BYTES = 16 << 10
QUEUED_CHUNKS = 64
"""The bytes that one direction holds. Beyond that, its sender is held back."""
Way = asyncio.Queue[tuple[float, bytes]]
"""When bytes are due at the other side, and what; b"" is the end."""
NO_LINGERING = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""Closing the socket sends a RST."""


class Link:
    """One connection through the proxy. Times are of `time.monotonic`."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.opened_at = time.monotonic()
        # When each side was seen to close or reset its end; None while it has not.
        self.client_ended_at: float | None = None
        self.server_ended_at: float | None = None
        self.bytes_up = 0
        self.bytes_down = 0
        self.loses_up = False
        self.loses_down = False
        self.task: asyncio.Task[None] | None = None

    def loses(self, is_up: bool) -> bool:
        """Do bytes to the server (up) or from it vanish?"""
        return self.loses_up if is_up else self.loses_down

    def count(self, is_up: bool, num_bytes: int) -> None:
        """So many more bytes came in, whether they are passed on or not."""
        if is_up:
            self.bytes_up += num_bytes
        else:
            self.bytes_down += num_bytes

    def close(self, *, reset: bool) -> None:
        """Close both ends."""
        for end in (self.client, self.server):
            if reset:
                with suppress(OSError):
                    end.setsockopt(*NO_LINGERING)
            end.close()


class Proxy:
    """Clients connect to `address`. Use it in a `with` block."""

    def __init__(self, target: str, *, delay_s: float = 0.0, bytes_per_s: float = 0.0) -> None:
        """`delay_s` holds for each way; `bytes_per_s` for each way of each connection, 0 for no bound."""
        self.delay_s = delay_s
        self.bytes_per_s = bytes_per_s
        self.links: list[Link] = []
        """All connections there have been, the oldest first."""
        self.flips = 0
        """Bits that were flipped."""
        self._target = target
        self._markers: set[bytes] = set()
        self._noise: tuple[random.Random, float] | None = None
        self._vanishing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.setblocking(False)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def open_links(self) -> list[Link]:
        """Connections of which no end was closed, by whomever."""
        return [link for link in self.links if link.task is not None and not link.task.done()]

    def reset(self) -> int:
        """RST to both sides of every connection; how many there were."""
        return self._await(self._reset())

    def go_half_open(self, *, new_ones_too: bool = True) -> int:
        """Make bytes vanish both ways while the sockets stay open, as behind a router that forgot the
        connection; how many connections there were. `new_ones_too`: until `heal`."""

        def cut() -> int:
            self._vanishing = new_ones_too
            for link in self.open_links:
                link.loses_up = link.loses_down = True
            return len(self.open_links)

        return self._call(cut)

    def heal(self) -> None:
        """New connections pass again. Old ones that lost bytes stay as they are: nothing could mend them."""

        def heal() -> None:
            self._vanishing = False

        self._call(heal)

    def swallow_replies(self) -> None:
        """Make the server's bytes on the existing connections vanish. Bytes to the server still arrive."""

        def swallow() -> None:
            for link in self.open_links:
                link.loses_down = True

        self._call(swallow)

    def flip_at(self, marker: bytes) -> None:
        """Once, flip the last bit of `marker` as it passes on its way to the server."""
        self._call(lambda: self._markers.add(marker))

    def flip_at_random(self, random_: random.Random, bytes_per_flip: float) -> None:
        """Flip single bits on their way to the server, one in about so many bytes; 0 to stop."""

        def set_noise() -> None:
            self._noise = (random_, bytes_per_flip) if bytes_per_flip else None

        self._call(set_noise)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        accepting = self._loop.create_task(self._accept())
        self._loop.run_forever()
        accepting.cancel()
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(accepting)
        self._loop.run_until_complete(self._reset())
        self._listener.close()

    def _call(self, work: Callable[[], T]) -> T:
        async def run() -> T:
            return work()

        return self._await(run())

    def _await(self, work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _accept(self) -> None:
        host, _, port = self._target.rpartition(":")
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            server = socket.socket()
            for end in (client, server):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            try:
                await self._loop.sock_connect(server, (host, int(port)))
            except OSError:
                link.close(reset=True)  # nobody listens there: the client is to see that too
                continue
            link.loses_up = link.loses_down = self._vanishing
            self.links.append(link)
            link.task = self._loop.create_task(self._carry(link))

    async def _reset(self) -> int:
        cut = self.open_links
        for link in cut:
            assert link.task is not None
            link.task.cancel()
        await asyncio.gather(*(link.task for link in cut if link.task), return_exceptions=True)
        for link in cut:
            link.close(reset=True)
        return len(cut)

    async def _carry(self, link: Link) -> None:
        """Both ways until both sides have ended, or one by a RST."""
        up: Way = asyncio.Queue(QUEUED_CHUNKS)
        down: Way = asyncio.Queue(QUEUED_CHUNKS)
        work = [self._read(link, up, is_up=True), self._deliver(link, up, is_up=True)]
        work += [self._read(link, down, is_up=False), self._deliver(link, down, is_up=False)]
        tasks = [asyncio.create_task(part) for part in work]
        try:
            await asyncio.gather(*tasks)
        except OSError:
            with suppress(OSError):
                for end in (link.client, link.server):
                    end.setsockopt(*NO_LINGERING)
        finally:
            for task in tasks:
                task.cancel()
            # Before the sockets are closed: their numbers may be given to the next connection at once.
            await asyncio.gather(*tasks, return_exceptions=True)
        link.close(reset=False)

    async def _read(self, link: Link, way: Way, *, is_up: bool) -> None:
        """Yield the bytes that one side sends, to its end. Raises OSError if that was a RST.

        The end of a connection that loses bytes is lost too: the other side is to notice by itself.
        """
        source = link.client if is_up else link.server
        data = b" "
        while data:
            try:
                data = await self._loop.sock_recv(source, CHUNK_BYTES)
            except OSError:
                self._ended(link, is_up=is_up)
                if not link.loses(is_up):
                    raise
                data = b""
            link.count(is_up, len(data))
            if not data:
                self._ended(link, is_up=is_up)
            elif is_up:
                data = self._flipped(data)
            await way.put((time.monotonic() + self.delay_s, data))

    async def _deliver(self, link: Link, way: Way, *, is_up: bool) -> None:
        """Give it to the other side when it is due."""
        sink = link.server if is_up else link.client
        while True:
            due, data = await way.get()
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if not link.loses(is_up):
                if not data:
                    with suppress(OSError):  # the other side may be gone already
                        sink.shutdown(socket.SHUT_WR)
                else:
                    await self._loop.sock_sendall(sink, data)
                    if self.bytes_per_s:
                        await asyncio.sleep(len(data) / self.bytes_per_s)
            if not data:
                return

    def _ended(self, link: Link, *, is_up: bool) -> None:
        if is_up:
            link.client_ended_at = link.client_ended_at or time.monotonic()
        else:
            link.server_ended_at = link.server_ended_at or time.monotonic()

    def _flipped(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for marker in [*self._markers]:
            at = data.find(marker)
            if at >= 0:
                self._markers.discard(marker)
                changed[at + len(marker) - 1] ^= 1
                self.flips += 1
        if self._noise is not None:
            random_, bytes_per_flip = self._noise
            if random_.random() < len(data) / bytes_per_flip:
                changed[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
                self.flips += 1
        return bytes(changed)
