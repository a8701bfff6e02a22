"""Streams over as many attempts as it takes."""

from collections.abc import Iterator

import pytest

import manyview
from manyview._transport.backoff import Backoff
from manyview._transport.resume import resumed


def quick(max_attempts: int | None = None) -> Backoff:
    return Backoff(sleep=lambda _: None, max_attempts=max_attempts)


def test_an_attempt_that_breaks_is_followed_by_another_one_until_one_completes() -> None:
    cursor = 0

    def attempt() -> Iterator[int]:
        nonlocal cursor
        for _ in range(2):
            if cursor == 5:
                return
            cursor += 1
            yield cursor
        raise manyview.Unavailable("broken")

    assert list(resumed(attempt, quick())) == [1, 2, 3, 4, 5]


def test_an_error_that_no_new_stream_cures_is_raised_at_once() -> None:
    attempts: list[int] = []

    def attempt() -> Iterator[int]:
        attempts.append(1)
        yield 1
        raise manyview.NotFound("gone")

    with pytest.raises(manyview.NotFound, match="gone"):
        list(resumed(attempt, quick()))
    assert attempts == [1]


def test_attempts_end_with_the_patience_of_the_backoff_or_with_the_time_that_is_left() -> None:
    attempts: list[int] = []

    def attempt() -> Iterator[int]:
        attempts.append(1)
        yield from ()
        raise manyview.Unavailable("broken")

    with pytest.raises(manyview.Unavailable, match="broken"):
        list(resumed(attempt, quick(max_attempts=3)))
    assert len(attempts) == 3
    with pytest.raises(manyview.Unavailable, match="broken"):
        list(resumed(attempt, quick(), left_s=lambda: 0.0))
    assert len(attempts) == 4
