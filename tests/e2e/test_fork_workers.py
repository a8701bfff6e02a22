"""Workers are forked by default, and started as programs where that is not wanted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from support.service.harness import ServerProcess, jpeg


def test_workers_are_forked_by_default(server: ServerProcess) -> None:
    previews(server)
    assert len(server.workers("fork-server")) == 1


def test_a_server_without_a_fork_server_starts_its_workers_as_programs(
    new_server: Callable[..., ServerProcess],
) -> None:
    server = new_server("--fork-workers", "off")
    server.start()
    previews(server)
    assert len(server.workers("fork-server")) == 0


def test_a_wrong_value_of_the_setting_is_named(new_server: Callable[..., ServerProcess]) -> None:
    server = new_server("--fork-workers", "maybe")
    with pytest.raises(AssertionError, match="fork_workers"):
        server.start()
    server.terminate()
    assert server.ended() == 2


def previews(server: ServerProcess) -> None:
    """It has a previewer, which works."""
    with server.client() as client:
        assert client.preview([jpeg()], "simclr", config={"image_size": 16}).views
    assert len(server.workers("previewer")) == 1
