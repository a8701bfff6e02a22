"""Find out whether the address to serve on is free. gRPC takes the port later, and reports what this cannot know."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat

HOST_AND_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.%]+\]|[^:/\[\]]+):(?P<port>\d{1,5})")
UNIX = "unix:"
CONNECT_S = 0.5


class AddressUnusable(Exception):
    """The server cannot listen on its address. `str()` says why, and what to do."""


def check(listen: str) -> None:
    """Raise AddressUnusable if another process has the address, or this machine has no such address.

    An address in a form that only gRPC reads is left to gRPC.
    """
    if listen.startswith(UNIX):
        _check_unix(listen.removeprefix(UNIX), listen)
    elif found := HOST_AND_PORT.fullmatch(listen):
        _check_tcp(found["host"].strip("[]"), int(found["port"]), listen)


def _check_tcp(host: str, port: int, listen: str) -> None:
    """Bind every address of the host for a moment. gRPC needs one of them."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError) as error:
        raise AddressUnusable(f"cannot listen on {listen}: the host is not known ({error})") from error
    attempts = (_bind(family, address) for family, *_, address in found)
    refusals = [error for error in attempts if error is not None]
    if len(refusals) == len(found):
        raise AddressUnusable(f"cannot listen on {listen}: {_reason(refusals[0])}")


def _bind(family: int, address: tuple[object, ...]) -> OSError | None:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # gRPC sets this, too: connections of an earlier server that are still closing do not hold the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another process uses this port. Stop that process, or choose another port with --listen"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address. Use 127.0.0.1 for this machine alone, or 0.0.0.0 for the network"
        case errno.EACCES:
            return "a port below 1024 needs more rights. Choose a higher one with --listen"
        case _:
            return str(error.strerror)


def _check_unix(path: str, listen: str) -> None:
    """A socket file that a dead server left behind is no obstacle: gRPC replaces it."""
    folder = os.path.dirname(path.removeprefix("//")) or "."
    if not os.path.isdir(folder):
        raise AddressUnusable(f"cannot listen on {listen}: the directory {folder} does not exist")
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return
    if not is_socket:
        raise AddressUnusable(f"cannot listen on {listen}: {path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(path)
        except OSError:
            return
    raise AddressUnusable(f"cannot listen on {listen}: another process listens there")
