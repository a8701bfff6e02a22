from __future__ import annotations

import pytest

from manyview._progress import words


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (125, "2:05 min"), (3725, "1:02:05 h")]
)
def test_durations_have_units(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


def test_counts_are_of_a_total_if_there_is_one() -> None:
    assert (words.counted(1200, 3068), words.counted(1200, 0)) == ("1,200 of 3,068", "1,200")


def test_counts_of_bytes_have_a_unit() -> None:
    assert words.counted(1_500_000, 46_000_000, are_bytes=True) == "1.5 of 46.0 MB"
    assert words.counted(1_500_000, 0, are_bytes=True) == "1.5 MB"


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (3068, ("image",), "3,068 images"),
        (1, ("query", "queries"), "1 query"),
        (2, ("image was", "images were"), "2 images were"),
    ],
)
def test_a_noun_follows_its_count(count: int, nouns: tuple[str, ...], text: str) -> None:
    assert words.number_of(count, *nouns) == text


@pytest.mark.parametrize(("done", "full"), [(0, 0), (1, 0), (767, 5), (3067, 19), (3068, 20), (4000, 20)])
def test_a_bar_is_full_only_when_all_is_done(done: int, full: int) -> None:
    assert words.bar(done, 3068) == "━" * full + "─" * (20 - full)


def test_the_time_left_is_known_only_between_the_first_and_the_last() -> None:
    assert [words.remaining(done, 10, 5.0) for done in (0, 5, 10)] == ["", "about 5 s left", ""]


@pytest.mark.parametrize(("seconds", "text"), [(0.44, "0.4 s"), (9.96, "10.0 s"), (10.0, "10 s"), (125, "2:05 min")])
def test_short_durations_may_have_a_decimal(seconds: float, text: str) -> None:
    assert words.duration(seconds, decimals=1) == text
