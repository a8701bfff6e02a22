"""Work on few bytes stays in the event loop, and work on many does not."""

from __future__ import annotations

import threading

import pytest

from manyview_server.system.sized_work import SMALL_BYTES, run_sized


@pytest.mark.parametrize(("num_bytes", "is_at_once"), [(0, True), (SMALL_BYTES, True), (SMALL_BYTES + 1, False)])
async def test_only_work_on_many_bytes_goes_to_a_thread(num_bytes: int, is_at_once: bool) -> None:
    worked_in = await run_sized(num_bytes, threading.get_ident)
    assert (worked_in == threading.get_ident()) == is_at_once


@pytest.mark.parametrize("num_bytes", [1, SMALL_BYTES + 1])
async def test_an_error_reaches_the_caller(num_bytes: int) -> None:
    with pytest.raises(ZeroDivisionError):
        await run_sized(num_bytes, lambda: 1 // 0)
