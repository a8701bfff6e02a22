from __future__ import annotations

import pytest

from manyview_server.supervise.timers.estimate import about, device_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "less than a minute"),
        (59, "less than a minute"),
        (100, "about 2 min"),
        (570, "about 10 min"),
        (2_460, "about 40 min"),
        (5_300, "about 90 min"),
        (5_500, "about 1.5 h"),
        (21_600, "about 6 h"),
        (40_000, "about 11 h"),
        (200_000, "about 2 days"),
    ],
)
def test_a_duration_is_as_exact_as_an_estimate(seconds: float, words: str) -> None:
    assert about(seconds) == words


def test_a_device_has_a_word() -> None:
    assert [device_words(device) for device in ("cpu", "cuda:1")] == ["this CPU", "this GPU"]
