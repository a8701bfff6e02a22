"""Pages of a listing, limited by the bytes of the reply and by the number of items.

A page ends before the item that would exceed the limit of bytes. So it may hold fewer items than the caller asks for,
although more follow. An item that is larger than the limit is sent alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from google.protobuf.message import Message

PAGE_BYTES = 1 << 20
FRAME_BYTES = 8
"""The most bytes that the tag and length of an item take in its reply."""

Record = TypeVar("Record")
Item = TypeVar("Item", bound=Message)


def page_bytes(max_message_bytes: int) -> int:
    """Return the most bytes of a page. It is far below the largest message."""
    return min(PAGE_BYTES, max_message_bytes // 4)


def fitting(records: Iterable[Record], convert: Callable[[Record], Item], max_bytes: int) -> list[Item]:
    """Convert the first records: as many as fit, and at least one. Call it off the event loop."""
    items: list[Item] = []
    num_bytes = 0
    for record in records:
        item = convert(record)
        num_bytes += item.ByteSize() + FRAME_BYTES
        if items and num_bytes > max_bytes:
            break
        items.append(item)
    return items


async def page(
    read: Callable[[int], Awaitable[tuple[list[Record], str]]],
    size: int,
    convert: Callable[[Record], Item],
    max_bytes: int,
) -> tuple[list[Item], str]:
    """Return a page of at most `size` items, and the token of the next page.

    `read` returns the records of a page of a given size, and the token of the next page. That token is made from the
    last record, so a page that turns out too large is read again with fewer records.
    """
    while True:
        records, next_page_token = await read(size)
        items = await asyncio.to_thread(fitting, records, convert, max_bytes)
        if len(items) == len(records):
            return items, next_page_token
        size = len(items)
