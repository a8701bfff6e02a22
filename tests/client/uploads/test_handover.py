"""Images on their way from the caller's thread to the one that sends them."""

import threading
from collections.abc import Callable

import pytest

from manyview._uploads import handover as module
from manyview._uploads.encoded_image import EncodedImage
from manyview._uploads.handover import Handover, UploadAbandoned


def image(key: str = "a", num_bytes: int = 1) -> EncodedImage:
    return EncodedImage(key, b"x" * num_bytes)


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_images_come_out_in_their_order_and_then_the_end() -> None:
    handover = Handover()
    assert handover.put(image("a"))
    assert handover.put(image("b"))
    handover.complete()
    assert not handover.is_exhausted
    assert [taken.key for taken in iter(handover.take, None)] == ["a", "b"]
    assert handover.is_exhausted


def test_what_is_on_its_way_is_bounded_by_bytes() -> None:
    handover = Handover()
    put: list[str] = []

    def pulls() -> None:
        for key in ("a", "b", "c"):
            handover.put(image(key, 1_000_000))
            put.append(key)

    thread = in_thread(pulls)
    thread.join(0.3)
    assert put == ["a"]
    for _ in range(3):
        assert handover.take(30) is not None
    thread.join(30)
    assert put == ["a", "b", "c"]


def test_nothing_is_waited_for_longer_than_asked() -> None:
    handover = Handover()
    assert handover.take(0.01) is None
    assert not handover.is_exhausted
    handover.wake()
    assert handover.take() is None, "there is something else to look at"


@pytest.mark.parametrize("wait", [Handover.take, Handover.wait, Handover.check, lambda handover: handover.sleep(60)])
def test_a_stop_reaches_the_sender_wherever_it_waits(wait: Callable[[Handover], object]) -> None:
    handover = Handover()
    stopped = threading.Event()

    def waits() -> None:
        try:
            while True:
                wait(handover)
        except UploadAbandoned:
            stopped.set()

    in_thread(waits)
    handover.stop()
    assert stopped.wait(30)


def test_the_end_of_the_sender_lets_the_caller_go_on() -> None:
    handover = Handover()
    handover.put(image(num_bytes=2_000_000))
    let_go: list[bool] = []
    thread = in_thread(lambda: let_go.append(handover.put(image())))
    handover.end()
    thread.join(30)
    assert let_go == [False]
    assert handover.wait_for_done()


def test_what_was_done_is_collected_once() -> None:
    handover = Handover()
    handover.add_done(2)
    handover.add_done(3)
    assert not handover.wait_for_done()
    assert (handover.collect_done(), handover.collect_done()) == (5, 0)


def test_images_that_come_quickly_are_taken_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_S", 60.0)
    handover = Handover()
    taken: list[str] = []
    thread = in_thread(lambda: taken.extend(image.key for image in iter(handover.take, None)))
    for number in range(3):
        handover.put(image(str(number)))
    thread.join(0.3)
    assert not taken, "more may come"
    handover.complete()
    thread.join(30)
    assert taken == ["0", "1", "2"]


@pytest.mark.parametrize("signal", [lambda handover: handover.put(image("b", 2_000_000)), Handover.wake])
def test_nothing_is_gathered_once_the_queue_is_full_or_there_is_something_else_to_read(
    signal: Callable[[Handover], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GATHER_S", 60.0)
    handover = Handover()
    taken: list[EncodedImage | None] = []
    handover.put(image("a"))
    thread = in_thread(lambda: taken.append(handover.take()))
    in_thread(lambda: signal(handover))
    thread.join(30)
    assert [one.key for one in taken if one] == ["a"]


def test_images_that_are_there_are_taken_at_once_and_make_room() -> None:
    handover = Handover()
    assert handover.take_gathered(9, 2_000_000) == []
    put: list[str] = []

    def pulls() -> None:
        for key in ("a", "b", "c", "d"):
            handover.put(image(key, 500_000))
            put.append(key)

    thread = in_thread(pulls)
    thread.join(0.3)
    assert put == ["a", "b", "c"]
    assert [taken.key for taken in (handover.take(30),) if taken] == ["a"]
    assert handover.take_gathered(0, 2_000_000) == []
    assert handover.take_gathered(9, 499_999) == []
    assert [taken.key for taken in handover.take_gathered(1, 500_000)] == ["b"]
    assert [taken.key for taken in handover.take_gathered(9, 2_000_000)] == ["c"]
    thread.join(30)
    assert put == ["a", "b", "c", "d"]
    assert handover.take_gathered(9, 2_000_000) == [], "d was not there when a was taken"
    assert [taken.key for taken in (handover.take(30),) if taken] == ["d"]
