"""Every decode has a note and room in memory, and gives both back however it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from manyview_server.image_header import ImageHeader
from manyview_server.link.decode_notes import ALONE, DECODE, DecodeNotes
from manyview_server.worker.images import decoder
from manyview_server.worker.images.decode_memory import DecodeMemory, decode_bytes
from manyview_server.worker.images.decoder import DecodeError, Picture
from manyview_server.worker.images.guarded_decoder import GuardedDecoder
from manyview_server.worker.images.rgb import DEFAULT_RULE, PixelRule
from support.learning import worker_harness

PPM = b"P6 30 20 255\n" + bytes(1800)
WAIT_S = 20


def header(width: int, height: int, extension: str = "ppm") -> ImageHeader:
    return ImageHeader(extension=extension, width=width, height=height)


class Memory(DecodeMemory):
    """Counts the decodes that have room."""

    inside = 0

    @contextmanager
    def room(self, header: ImageHeader) -> Iterator[None]:
        with super().room(header):
            self.inside += 1
            try:
                yield
            finally:
                self.inside -= 1


def test_an_image_is_resampled_and_keeps_the_size_that_it_had() -> None:
    image = GuardedDecoder("x", None, DecodeMemory()).decode(PPM, 16, DEFAULT_RULE, item=0)
    assert (tuple(image.pixels.shape), image.height, image.width) == ((3, 16, 16), 20, 30)


@pytest.mark.parametrize(("alone", "kind"), [(False, DECODE), (True, ALONE)])
def test_the_note_and_the_room_are_there_during_the_decode_and_gone_after_it(
    monkeypatch: pytest.MonkeyPatch, alone: bool, kind: Any
) -> None:
    notes, memory = DecodeNotes.private(), Memory()
    seen: list[tuple[int, int, int, int]] = []

    def look(data: bytes, header: ImageHeader, rule: PixelRule) -> Picture:
        seen.extend((note.kind, note.request, note.item, memory.inside) for note in notes.read())
        raise DecodeError("DECODE_FAILED", "broken")

    monkeypatch.setattr(decoder, "read_picture", look)
    with pytest.raises(DecodeError, match="broken"):
        GuardedDecoder("x", notes, memory).decode(PPM, 16, DEFAULT_RULE, request=7, item=3, alone=alone)
    assert seen == [(kind, 7, 3, 1)]
    assert (notes.read(), memory.inside) == ((), 0)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_lack_of_memory_fails_only_the_image(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(data: bytes, header: ImageHeader, rule: PixelRule) -> Picture:
        raise error

    monkeypatch.setattr(decoder, "read_picture", fail)
    with pytest.raises(DecodeError, match="30 x 20") as caught:
        GuardedDecoder("x", None, DecodeMemory()).decode(PPM, 16, DEFAULT_RULE, item=0)
    assert caught.value.reason == "DECODE_OUT_OF_MEMORY"


def test_pillows_lack_of_memory_is_not_taken_for_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("PIL.Image.open", fail)
    with pytest.raises(MemoryError):
        decoder.decode(worker_harness.encoded(np.zeros((20, 30, 3), np.uint8)))


def test_an_image_that_would_need_more_than_all_have_is_refused_with_both_numbers() -> None:
    memory = DecodeMemory(limit_bytes=1000)
    with pytest.raises(DecodeError, match=r"6,000 bytes.*1,000") as caught, memory.room(header(100, 10)):
        pass
    assert caught.value.reason == "DECODE_OUT_OF_MEMORY"
    with memory.room(header(10, 10)):
        pass


def test_decodes_together_never_take_more_than_the_limit_and_all_come_to_their_turn() -> None:
    memory = DecodeMemory(limit_bytes=decode_bytes(header(100, 100)))
    taken, most, lock = 0, 0, threading.Lock()

    def decode(size: int) -> None:
        nonlocal taken, most
        for _ in range(50):
            with memory.room(header(size, size)):
                with lock:
                    taken += decode_bytes(header(size, size))
                    most = max(most, taken)
                with lock:
                    taken -= decode_bytes(header(size, size))

    threads = [threading.Thread(target=decode, args=(size,)) for size in (100, 70, 50, 50, 30, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert 0 < most <= decode_bytes(header(100, 100))
    assert taken == 0
    with memory.room(header(100, 100)):
        pass


def test_a_large_image_is_not_overtaken_for_ever_by_small_ones() -> None:
    memory = DecodeMemory(limit_bytes=decode_bytes(header(100, 100)))
    order: list[str] = []

    def decode(name: str, size: int) -> None:
        with memory.room(header(size, size)):
            order.append(name)

    with memory.room(header(10, 10)):
        large = threading.Thread(target=decode, args=("large", 100))
        large.start()
        while not memory._waiting:
            pass
        small = threading.Thread(target=decode, args=("small", 10))
        small.start()
        while len(memory._waiting) < 2:
            pass
    large.join(WAIT_S)
    small.join(WAIT_S)
    assert order == ["large", "small"]
