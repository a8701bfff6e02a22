from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from manyview_server import decode_notes
from manyview_server.decode_notes import SLOTS, DecodeNotes


def test_notes_outlive_a_killed_process(tmp_path: Path) -> None:
    path = decode_notes.path_for(tmp_path / "job" / "checkpoints")
    program = f"""
import os, pathlib, signal
from manyview_server.decode_notes import DecodeNotes
with DecodeNotes(pathlib.Path({str(path)!r})).of(2**63 - 1, alone=True):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert path.parent == tmp_path / "job"
    assert decode_notes.read(path) == (True, (2**63 - 1,))
    DecodeNotes(path)
    assert decode_notes.read(path) == (False, ())


def test_each_thread_has_its_note_for_as_long_as_it_decodes(tmp_path: Path) -> None:
    notes, path = DecodeNotes(tmp_path / "notes"), tmp_path / "notes"
    inside, seen = threading.Barrier(5), threading.Barrier(5)

    def decode(image_id: int) -> None:
        with notes.of(image_id):
            inside.wait(10)
            seen.wait(10)

    with ThreadPoolExecutor(4) as pool:
        work = [pool.submit(decode, image_id) for image_id in (7, 8, 9, 10)]
        inside.wait(10)
        assert sorted(decode_notes.read(path)[1]) == [7, 8, 9, 10]
        seen.wait(10)
        for done in work:
            done.result(10)
    assert decode_notes.read(path) == (False, ())


def test_a_decoder_that_raises_has_not_died(tmp_path: Path) -> None:
    notes = DecodeNotes(tmp_path / "notes")
    with pytest.raises(ValueError, match="broken"), notes.of(7, alone=True):
        raise ValueError("broken")
    assert decode_notes.read(tmp_path / "notes") == (False, ())


def test_a_note_is_there_however_many_threads_came_before(tmp_path: Path) -> None:
    notes = DecodeNotes(tmp_path / "notes")
    for image_id in range(1, 3 * SLOTS):
        with notes.of(image_id):
            assert decode_notes.read(tmp_path / "notes") == (False, (image_id,))


def test_more_at_once_than_there_are_slots_go_unnoted(tmp_path: Path) -> None:
    notes = DecodeNotes(tmp_path / "notes")
    with ExitStack() as stack:
        for image_id in range(1, SLOTS + 5):
            stack.enter_context(notes.of(image_id))
        assert sorted(decode_notes.read(tmp_path / "notes")[1]) == list(range(1, SLOTS + 1))
    assert decode_notes.read(tmp_path / "notes") == (False, ())


def test_no_notes_or_half_of_them_say_nothing(tmp_path: Path) -> None:
    assert decode_notes.read(tmp_path / "missing") == (False, ())
    (tmp_path / "short").write_bytes(b"\1" * 100)
    assert decode_notes.read(tmp_path / "short") == (False, ())
