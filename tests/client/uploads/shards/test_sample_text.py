"""Texts that are labels, and texts that are captions."""

import pytest

from manyview._uploads.shards.sample_text import looks_like_class


@pytest.mark.parametrize("text", ["cat", "n01440764", "great white shark", "T-shirt/top", "犬", "", "12", "a b c d"])
def test_a_short_text_looks_like_a_class(text: str) -> None:
    assert looks_like_class(text)


@pytest.mark.parametrize("text", ["a dog on a beach", "two\nlines", "tab\tbed", "Red shoes.", "x" * 51])
def test_a_sentence_looks_like_a_caption(text: str) -> None:
    assert not looks_like_class(text)
