"""A decode is over its limit by the CPU time of its thread, a task by the time for which the server was awake."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import pytest

from manyview_server.link.decode_notes import DECODE, FORWARD, DecodeNotes
from manyview_server.supervise.decode_watch import NS_PER_S, DecodeWatch, TaskWatch, thread_cpu_s
from manyview_server.supervise.slow_images import MAX_REMEMBERED, SlowImages
from manyview_server.system import awake_time


def spent(seconds: float) -> float:
    """The CPU seconds of a thread at the start of its decode, and `seconds` more later."""
    return time.thread_time_ns() / NS_PER_S + seconds


@pytest.mark.parametrize(
    ("kind", "seconds", "is_slow"), [(DECODE, 5.5, True), (DECODE, 4.5, False), (FORWARD, 99, False)]
)
def test_a_decode_is_slow_once_its_thread_has_spent_more_than_the_limit(
    kind: Any, seconds: float, is_slow: bool
) -> None:
    notes = DecodeNotes.private()
    watch = DecodeWatch(1, notes, 5.0, cpu_s=lambda pid, thread: spent(seconds))
    with notes.task(kind, request=3, item=4):
        found = watch.look()
    assert [(slow.note.request, slow.note.item, round(slow.cpu_s)) for slow in found] == (
        [(3, 4, 6)] if is_slow else []
    )
    assert watch.look() == ()


def test_all_decodes_over_the_limit_are_found_at_once() -> None:
    notes = DecodeNotes.private()
    with notes.task(DECODE, item=1), notes.task(DECODE, item=2):
        found = DecodeWatch(1, notes, 5.0, cpu_s=lambda pid, thread: spent(9)).look()
    assert {slow.note.item for slow in found} == {1, 2}


def test_the_time_of_the_next_image_is_not_put_down_to_the_one_before() -> None:
    notes = DecodeNotes.private()

    def moves_on(pid: int, thread: int) -> float:
        first.__exit__(None, None, None)
        second.__enter__()
        return spent(9)

    first, second = notes.task(DECODE, item=1), notes.task(DECODE, item=1)
    first.__enter__()
    sum(range(1000))
    assert DecodeWatch(1, notes, 5.0, cpu_s=moves_on).look() == ()
    second.__exit__(None, None, None)


def test_a_thread_that_has_ended_is_not_slow() -> None:
    notes = DecodeNotes.private()
    with notes.task(DECODE):
        assert DecodeWatch(2**22 + 1, notes, 0.0).look() == ()


def test_the_time_of_a_thread_is_its_own() -> None:
    over = threading.Event()
    started = threading.Event()
    threads: list[int] = []

    def sleep() -> None:
        threads.append(threading.get_native_id())
        started.set()
        over.wait(20)

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    started.wait(20)
    before = thread_cpu_s(os.getpid(), threading.get_native_id())
    end = time.thread_time() + 0.3
    while time.thread_time() < end:
        pass
    assert thread_cpu_s(os.getpid(), threading.get_native_id()) - before >= 0.25
    assert thread_cpu_s(os.getpid(), threads[0]) < 0.2
    over.set()
    sleeper.join()


async def test_a_task_is_overdue_when_the_server_was_awake_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(awake_time, "now", lambda: now)
    notes = DecodeNotes.private()
    watch = TaskWatch(notes, 10.0)
    with notes.task(FORWARD), notes.task(DECODE, item=1):
        assert watch.look() == ()
        now += 9.0
    with notes.task(FORWARD):
        assert watch.look() == (), "it is another one"
        now += 9.0
        assert watch.look() == ()
        now += 2.0
        (overdue,) = watch.look()
        assert (overdue.kind, watch.last_change) == (FORWARD, 109.0)
    assert watch.look() == ()
    assert watch.last_change == now


def test_slow_images_are_known_by_their_ids_and_the_oldest_are_forgotten() -> None:
    slow = SlowImages()
    for image_id in range(MAX_REMEMBERED + 2):
        slow.add(image_id)
    slow.add(2)
    slow.add(MAX_REMEMBERED + 5)
    assert slow.rows([0, 1, 2, 3, 9]) == (2, 4)
