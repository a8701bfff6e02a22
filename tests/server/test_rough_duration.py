from __future__ import annotations

import pytest

from manyview_server.rough_duration import about


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
