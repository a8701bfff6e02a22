"""Pages end by bytes as well as by count, and lose nothing."""

from __future__ import annotations

import asyncio

from google.protobuf.wrappers_pb2 import BytesValue

from manyview_server.front.rpc import pages


def sizes(items: list[BytesValue]) -> list[int]:
    return [len(item.value) for item in items]


class Listing:
    """Records are numbers of bytes; tokens are positions."""

    def __init__(self, records: list[int]) -> None:
        self.records = records
        self.asked: list[int] = []

    async def everything(self, size: int, max_bytes: int) -> list[list[int]]:
        """All pages, as a client would fetch them."""
        found: list[list[int]] = []
        token = ""

        async def read(count: int) -> tuple[list[int], str]:
            start = int(token or 0)
            self.asked.append(count)
            end = start + count
            return self.records[start:end], str(end) if end < len(self.records) else ""

        while True:
            items, token = await pages.page(read, size, lambda n: BytesValue(value=bytes(n)), max_bytes)
            found.append(sizes(items))
            if not token:
                return found


def test_a_page_ends_before_the_item_with_which_it_would_be_too_large() -> None:
    listing = Listing([100] * 10)
    assert asyncio.run(listing.everything(10, 450)) == [[100] * 4, [100] * 4, [100] * 2]


def test_an_item_that_is_larger_than_a_page_is_sent_alone() -> None:
    listing = Listing([10, 5000, 10, 5000, 5000])
    assert asyncio.run(listing.everything(10, 450)) == [[10], [5000], [10], [5000], [5000]]


def test_pages_that_fit_are_read_once_and_are_as_long_as_was_asked_for() -> None:
    listing = Listing([10] * 7)
    assert asyncio.run(listing.everything(3, 450)) == [[10] * 3, [10] * 3, [10]]
    assert listing.asked == [3, 3, 3]


def test_a_page_is_far_below_the_largest_message() -> None:
    assert pages.page_bytes(16 << 20) == pages.PAGE_BYTES
    assert pages.page_bytes(1 << 20) == 1 << 18
