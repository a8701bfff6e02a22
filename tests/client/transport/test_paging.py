"""Listings in pages."""

from dataclasses import dataclass

from manyview._transport.paging import pages


@dataclass
class Page:
    items: list[int]
    next_page_token: str


def test_every_page_is_fetched_with_the_token_of_the_one_before_and_only_when_it_is_needed() -> None:
    listing = {"": Page([1, 2], "b"), "b": Page([], "c"), "c": Page([3], "")}
    fetched: list[str] = []

    def fetch(token: str) -> Page:
        fetched.append(token)
        return listing[token]

    found = pages(fetch)
    assert fetched == []
    assert next(found).items == [1, 2]
    assert fetched == [""]
    assert [page.items for page in found] == [[], [3]]
    assert fetched == ["", "b", "c"]
