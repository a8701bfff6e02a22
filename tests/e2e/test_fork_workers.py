"""Workers are forked by default, and started as programs where that is not wanted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.service.harness import ServerProcess, jpeg


@pytest.mark.parametrize(("setting", "num_fork_servers"), [("auto", 1), ("off", 0)])
def test_the_setting_decides_whether_there_is_a_fork_server(
    new_server: Callable[..., ServerProcess], setting: str, num_fork_servers: int
) -> None:
    server = new_server("--fork-workers", setting)
    server.start()
    with server.client() as client:
        assert client.preview([jpeg()], "simclr", config={"image_size": 16}).views
    assert len(server.workers("previewer")) == 1
    assert len(server.workers("fork-server")) == num_fork_servers


def test_a_wrong_value_of_the_setting_is_named(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server("--fork-workers", "maybe")
    with pytest.raises(AssertionError, match="fork_workers"):
        server.start()
    server.terminate()
    assert server.ended() == 2
