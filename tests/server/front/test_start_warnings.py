"""The warnings of a server that others can reach without a token, or whose tokens travel unencrypted."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from manyview_server.config import ServeSettings
from manyview_server.front.start_warnings import warn_if_unprotected


@pytest.mark.parametrize(
    ("listen", "fields", "warned"),
    [
        ("127.0.0.1:1", {}, False),
        ("[::1]:1", {}, False),
        ("localhost:1", {}, False),
        ("unix:/tmp/s", {}, False),
        ("0.0.0.0:1", {}, True),
        ("[::]:1", {}, True),
        ("0.0.0.0:1", {"token_file": "t"}, True),
        ("0.0.0.0:1", {"token_file": "t", "tls_cert": "c", "tls_key": "k"}, False),
    ],
)
def test_an_open_door_is_warned_of(
    listen: str, fields: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_if_unprotected(ServeSettings(listen=listen, data=Path("x"), **fields))
    assert bool(caplog.records) is warned
    assert all(listen in record.getMessage() for record in caplog.records)
