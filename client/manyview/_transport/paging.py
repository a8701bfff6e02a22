"""Listings that the server answers in pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar


class Page(Protocol):
    """One page of a listing. The last page has an empty token."""

    @property
    def next_page_token(self) -> str: ...


P = TypeVar("P", bound=Page)


def pages(fetch: Callable[[str], P]) -> Iterator[P]:
    """Yield every page of a listing. `fetch` gets the token of a page, which is empty for the first one."""
    token = ""
    while True:
        page = fetch(token)
        yield page
        token = page.next_page_token
        if not token:
            return
