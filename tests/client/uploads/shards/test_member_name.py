"""The parts of a member's name."""

import pytest

from manyview._uploads.shards.member_name import is_hidden, joined, split_name


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train/22.05.JPG", ("train/22", "05.JPG", "05", "jpg")),
        ("./v1.2/a.jpg", ("./v1.2/a", "jpg", "", "jpg")),
        ("v1.2/a", ("v1.2/a", "", "", "")),
    ],
)
def test_a_sample_ends_at_the_first_dot_of_the_base_name(name: str, parts: tuple[str, ...]) -> None:
    found = split_name(name)
    assert (found.sample, found.rest, found.stem, found.type) == parts
    assert joined(found.sample, found.rest) == name


def test_hidden_parts_hide_a_name_and_relative_folders_do_not() -> None:
    assert all(map(is_hidden, (".a.jpg", "a/._b.jpg", ".git/a.jpg", "a/__MACOSX/b.jpg", "..a/b.jpg")))
    assert not any(map(is_hidden, ("a.jpg", "./a.jpg", "../a/b.jpg", "/a.jpg", "MACOSX/a.jpg")))
