"""Requests to the fork server, over a socket of whole packets that carries descriptors too.

A request asks for one worker, and brings the worker's ends of its link, its notes, its stdout and its stderr. The new
worker answers with its process id. The fork server answers only when it cannot fork, with the reason.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

MAX_PACKET_BYTES = 192 << 10
"""The kernel sends no larger packet with its default settings."""

EXIT_UNFIT = 78
"""The exit status of a fork server whose workers would inherit a broken state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDescriptors:
    """The file descriptors that a worker gets."""

    link: int
    notes: int
    stdout: int
    stderr: int

    def duplicate(self) -> WorkerDescriptors:
        """Return new descriptors of the same files. Raises OSError, and then leaves none open."""
        copies: dict[str, int] = {}
        try:
            for name, descriptor in asdict(self).items():
                copies[name] = os.dup(descriptor)
        except OSError:
            for copy in copies.values():
                os.close(copy)
            raise
        return WorkerDescriptors(**copies)

    def close(self) -> None:
        """Close all of them."""
        for descriptor in asdict(self).values():
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkRequest:
    """Fork a worker of this kind, with this environment. `arguments` end its command line."""

    kind: str
    environment: Mapping[str, str]
    arguments: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkAnswer:
    """The process id of the new worker, or the reason for which none was made."""

    pid: int = 0
    error: str = ""


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new connection, the server's end second."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send_request(control: socket.socket, request: ForkRequest, descriptors: WorkerDescriptors) -> None:
    """Send one request. Raises OSError when the fork server is gone, or the request too long for a packet."""
    socket.send_fds(control, [json.dumps(asdict(request)).encode()], list(asdict(descriptors).values()))


def receive_request(control: socket.socket) -> tuple[ForkRequest, WorkerDescriptors] | None:
    """Wait for the next request. Return None when the front has closed its end."""
    packet, received, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, 4)
    if not packet:
        return None
    link, notes, stdout, stderr = received
    descriptors = WorkerDescriptors(link=link, notes=notes, stdout=stdout, stderr=stderr)
    return ForkRequest(**json.loads(packet)), descriptors


def send_answer(control: socket.socket, answer: ForkAnswer) -> None:
    """Answer a request. Raises OSError when the front is gone."""
    control.send(json.dumps(asdict(answer)).encode())


def parse_answer(packet: bytes) -> ForkAnswer:
    """Return the answer in a packet; an empty one means that nobody is left to answer."""
    return ForkAnswer(**json.loads(packet)) if packet else ForkAnswer(error="it ended before it answered")
