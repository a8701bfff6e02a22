from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from manyview_server.link import decode_notes
from manyview_server.link.decode_notes import ALONE, DECODE, SLOTS, DecodeNotes, Note


def items(notes: DecodeNotes) -> list[int]:
    return sorted(note.item for note in notes.read())


def test_notes_outlive_a_killed_process() -> None:
    descriptor = decode_notes.allocate()
    notes = DecodeNotes(descriptor)
    program = f"""
import os, signal
from manyview_server.link.decode_notes import ALONE, DecodeNotes
with DecodeNotes({descriptor}).task(ALONE, request=7, item=2**63 - 1):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", program], check=False, pass_fds=(descriptor,))
    os.close(descriptor)
    assert run.returncode == -signal.SIGKILL
    notes.detach()
    notes.detach()
    (note,) = notes.read()
    assert (note.kind, note.request, note.item, note.is_decode) == (ALONE, 7, 2**63 - 1, True)


def test_each_thread_has_its_note_for_as_long_as_it_decodes() -> None:
    notes = DecodeNotes.private()
    inside, seen = threading.Barrier(5), threading.Barrier(5)

    def decode(image_id: int) -> int:
        with notes.task(DECODE, item=image_id):
            inside.wait(10)
            seen.wait(10)
        return threading.get_native_id()

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(decode, image_id) for image_id in (7, 8, 9, 10)]
        inside.wait(10)
        threads = {note.item: note.thread for note in notes.read()}
        seen.wait(10)
        assert threads == {7 + at: done.result(10) for at, done in enumerate(work)}
    assert notes.read() == ()


def test_a_decoder_that_raises_has_not_died() -> None:
    notes = DecodeNotes.private()
    with pytest.raises(ValueError, match="broken"), notes.task(ALONE, item=7):
        raise ValueError("broken")
    assert notes.read() == ()


def test_an_image_whose_id_is_0_is_noted_too() -> None:
    notes = DecodeNotes.private()
    with notes.task(DECODE, item=0):
        assert items(notes) == [0]


def test_two_decodes_of_one_image_by_one_thread_are_told_apart() -> None:
    notes = DecodeNotes.private()
    seen: list[Note] = []
    for _ in range(2):
        with notes.task(DECODE, item=7):
            seen += notes.read()
        sum(range(10_000))
    assert seen[0] != seen[1]
    assert seen[0].start_ns < seen[1].start_ns


def test_a_note_is_there_however_many_threads_came_before() -> None:
    notes = DecodeNotes.private()
    for image_id in range(1, 3 * SLOTS):
        with notes.task(DECODE, item=image_id):
            assert items(notes) == [image_id]


def test_more_at_once_than_there_are_slots_go_unnoted() -> None:
    notes = DecodeNotes.private()
    with ExitStack() as stack:
        for image_id in range(1, SLOTS + 5):
            stack.enter_context(notes.task(DECODE, item=image_id))
        assert items(notes) == list(range(1, SLOTS + 1))
    assert notes.read() == ()


def test_a_reader_beside_a_busy_writer_sees_whole_notes() -> None:
    notes, over = DecodeNotes.private(), threading.Event()

    def write() -> None:
        for number in range(20_000):
            with notes.task(DECODE, request=number, item=number):
                pass
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        assert all(note.request == note.item for note in notes.read())
    writer.join()
