"""An address that cannot be listened on is noticed before gRPC is imported."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyview_server.early import port
from manyview_server.early.port import AddressUnusable


@pytest.fixture
def taken() -> Iterator[int]:
    """A port of 127.0.0.1 on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_in_use_is_refused_in_words_that_help(taken: int, host: str) -> None:
    with pytest.raises(AddressUnusable, match=rf"cannot listen on {host}:{taken}: another process uses this port"):
        port.check(f"{host}:{taken}")


def test_a_free_port_stays_free_for_the_server(taken: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    port.check(f"127.0.0.1:{free}")
    with socket.create_server(("127.0.0.1", free)):
        pass


def test_one_free_address_of_a_host_is_enough(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", taken)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    port.check(f"localhost:{taken}")


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("192.0.2.1:50051", "this machine has no such address"),
        ("no-such-host.invalid:50051", "the host is not known"),
        ("unix:/no/such/directory/socket", "the directory /no/such/directory does not exist"),
    ],
)
def test_an_address_that_is_not_of_this_machine_is_refused(listen: str, why: str) -> None:
    with pytest.raises(AddressUnusable, match=why):
        port.check(listen)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0", "50051", "dns:localhost:50051", ""])
def test_free_ports_and_forms_that_only_grpc_reads_pass(listen: str) -> None:
    port.check(listen)


def test_a_socket_file_is_refused_only_while_somebody_listens_there(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(AddressUnusable, match="another process listens there"):
            port.check(f"unix:{path}")
    assert path.exists()
    port.check(f"unix:{path}")
