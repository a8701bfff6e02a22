"""The proxy does to a connection what the tests of faults believe that it does."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from support.faults.proxy import Proxy
from support.service.harness import wait_until

Connect = Callable[[], socket.socket]


class Echo:
    """Sends back what it gets. `received` is all of it, over all connections."""

    def __init__(self) -> None:
        self.received = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):  # closed already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(peer,), daemon=True))
                self._threads[-1].start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            peer.settimeout(10)
            while data := peer.recv(1 << 16):
                self.received += data
                peer.sendall(data)


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.address) as made:
        yield made


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Connect]:
    made: list[socket.socket] = []

    def connect() -> socket.socket:
        host, _, port = proxy.address.rpartition(":")
        made.append(socket.create_connection((host, int(port)), timeout=10))
        return made[-1]

    yield connect
    for peer in made:
        peer.close()


def exchange(peer: socket.socket, data: bytes) -> bytes:
    """Send, and read as much."""
    sender = threading.Thread(target=peer.sendall, args=(data,))
    sender.start()
    answer = b""
    while len(answer) < len(data) and (more := peer.recv(1 << 16)):
        answer += more
    sender.join(10)
    return answer


def test_bytes_and_ends_pass_unchanged(proxy: Proxy, connect: Connect) -> None:
    data = random.Random(1).randbytes(3_000_000)
    peer = connect()
    assert exchange(peer, data) == data
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(1) == b""
    wait_until(lambda: not proxy.open_links, "the connection is over", 5)
    (link,) = proxy.links
    assert link.bytes_up == link.bytes_down == len(data)


def test_a_reset_is_one_on_both_sides_and_the_next_connection_passes(proxy: Proxy, connect: Connect) -> None:
    peers = [connect(), connect()]
    for peer in peers:
        exchange(peer, b"hello")
    assert proxy.reset() == 2
    for peer in peers:
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
    assert proxy.reset() == 0
    assert exchange(connect(), b"again") == b"again"


def test_a_half_open_connection_is_silent_and_notices_who_gives_up(proxy: Proxy, connect: Connect, echo: Echo) -> None:
    peer = connect()
    exchange(peer, b"before")
    assert proxy.go_half_open() == 1
    peer.sendall(b"lost")
    peer.settimeout(0.3)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    late = connect()
    late.sendall(b"lost too")
    late.settimeout(0.2)
    with pytest.raises(TimeoutError):
        late.recv(1)
    assert proxy.links[0].client_ended_at is None
    peer.close()
    wait_until(lambda: proxy.links[0].client_ended_at is not None, "the client's end is noted", 5)
    assert proxy.links[0].server_ended_at is None, "and the server is not told"
    proxy.heal()
    assert exchange(connect(), b"after") == b"after"
    assert echo.received == b"beforeafter"


def test_swallowed_replies_leave_the_way_to_the_server_open(proxy: Proxy, connect: Connect, echo: Echo) -> None:
    peer = connect()
    exchange(peer, b"one")
    proxy.swallow_replies()
    peer.sendall(b"two")
    wait_until(lambda: echo.received == b"onetwo", "the server got it", 5)
    peer.settimeout(0.2)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    assert proxy.reset() == 1


def test_delay_and_bandwidth_take_their_time(proxy: Proxy, connect: Connect) -> None:
    peer = connect()
    proxy.delay_s = 0.15
    began = time.monotonic()
    exchange(peer, b"there and back")
    assert 0.3 <= time.monotonic() - began < 3
    proxy.delay_s, proxy.bytes_per_s = 0.0, 200_000
    began = time.monotonic()
    exchange(peer, bytes(100_000))
    assert 0.35 <= time.monotonic() - began < 5


def test_bits_are_flipped_where_and_as_often_as_asked_for(proxy: Proxy, connect: Connect) -> None:
    peer = connect()
    proxy.flip_at(b"mark")
    assert exchange(peer, b"a mark, a mark") == b"a marj, a mark"
    assert proxy.flips == 1
    proxy.flip_at_random(random.Random(3), 10_000)
    data = bytes(1_000_000)
    flipped = sum(byte.bit_count() for byte in exchange(peer, data))
    assert 30 < flipped == proxy.flips - 1 < 300
    proxy.flip_at_random(random.Random(3), 0)
    assert exchange(peer, data) == data


def test_a_server_that_is_not_there_is_refused(connect: Connect, echo: Echo) -> None:
    echo.close()
    with pytest.raises(ConnectionResetError):
        connect().recv(1)
