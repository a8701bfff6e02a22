"""Counts with their nouns."""

import pytest

from manyview_server.counted_noun import number_of


@pytest.mark.parametrize(
    ("count", "noun", "plural", "text"),
    [
        (0, "image", "", "0 images"),
        (1, "image", "", "1 image"),
        (3068, "image", "", "3,068 images"),
        (1, "query", "queries", "1 query"),
        (2, "image is", "images are", "2 images are"),
    ],
)
def test_a_noun_follows_its_count(count: int, noun: str, plural: str, text: str) -> None:
    assert number_of(count, noun, plural) == text
