"""Streams that survive a dropped connection: open the stream again until its answer is complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from manyview._errors import DeadlineExceeded, ManyviewError, Unavailable, may_reopen
from manyview._transport.backoff import Backoff
from manyview._transport.channel import Deadlines
from manyview._transport.deadline import Deadline
from manyview._transport.stream import Stream

T = TypeVar("T")
R = TypeVar("R")


def resumed(
    attempt: Callable[[], Iterator[T]], backoff: Backoff, *, left_s: Callable[[], float | None] = lambda: None
) -> Iterator[T]:
    """Yield everything that `attempt()` yields. When it fails in a way that a new stream may cure, wait and call it
    again.

    The caller keeps what the next attempt must know, such as a cursor, and calls `backoff.succeeded()` when an attempt
    made progress. The failure is raised when `backoff` gives up, or when the next wait would not fit into `left_s()`.
    """
    while True:
        try:
            yield from attempt()
            return
        except ManyviewError as error:
            if not may_reopen(error):
                raise
            failure = error
        backoff.wait(failure, at_most_s=left_s())


def replies(
    open_stream: Callable[[], Stream[Any, R]],
    deadlines: Deadlines,
    *,
    is_end: Callable[[R], bool],
    is_pause: Callable[[R], bool] = lambda _: False,
    is_progress: Callable[[R], bool] = lambda _: True,
    timeout_s: float | None = None,
    began: float | None = None,
) -> Iterator[R]:
    """Yield the messages of a server's stream up to the one that ends it, over as many connections as it takes.

    `is_pause`: does this message say that the server shuts down and must be asked again? `is_progress`: does this
    message prove progress? Only progress resets the count of failures. `timeout_s` runs from `began`, by default from
    now; when it has passed, DeadlineExceeded is raised.
    """
    backoff = Backoff(give_up_after_s=deadlines.reconnect_s, longest_attempt_s=deadlines.longest_s)
    deadline = Deadline(timeout_s, began=began)

    def attempt() -> Iterator[R]:
        with open_stream() as stream:
            while (message := stream.receive(deadline.left_s())) is not None:
                if is_progress(message):
                    backoff.succeeded()
                yield message
                if is_end(message):
                    return
                if is_pause(message):
                    break
        raise Unavailable("the stream ended before the server had sent everything", reason="STREAM_ENDED")

    try:
        yield from resumed(attempt, backoff, left_s=deadline.left_s)
    except ManyviewError:  # first, because a DeadlineExceeded from the server is a TimeoutError, too
        raise
    except TimeoutError as error:
        raise DeadlineExceeded(f"not done within {timeout_s:g} s") from error
