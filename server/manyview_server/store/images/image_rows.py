"""The rows of images in the database: pages of them, and single ones by position, id or key."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from manyview_server.errors import FailedPrecondition, NotFound
from manyview_server.store.records import FoundImage, ImageRecord, ImageRef

# A page, and the token of the next page: "" after the last one.
ImagePage = tuple[list[ImageRecord], str]

COMMITTED = """
    SELECT image.position, image_id, key, coalesce(label.name, ''), length, width, height,
           coalesce(reason, ''), coalesce(message, ''), reason IS NOT NULL
    FROM image
    LEFT JOIN label ON label.dataset = image.dataset AND label.ordinal = image.label
    LEFT JOIN unreadable ON unreadable.dataset = image.dataset AND unreadable.position = image.position
"""
STORED_PAGE = f"{COMMITTED} WHERE image.dataset = ? AND image.position > ? ORDER BY image.position LIMIT ?"
IMAGE_AT = f"{COMMITTED} WHERE image.dataset = ? AND image.position = ?"
UNREADABLE_PAGE = """
    SELECT image.position, image_id, key, coalesce(label.name, ''), length, width, height, reason, message, 1
    FROM unreadable
    JOIN image ON image.dataset = unreadable.dataset AND image.position = unreadable.position
    LEFT JOIN label ON label.dataset = image.dataset AND label.ordinal = image.label
    WHERE unreadable.dataset = ? AND unreadable.position > ?
    ORDER BY unreadable.position LIMIT ?
"""
REJECTED_PAGE = """
    SELECT ordinal, key, label, num_bytes, reason, message FROM rejected
    WHERE dataset = ? AND ordinal > ? ORDER BY ordinal LIMIT ?
"""
PLACES_BY_ID = "SELECT position, shard, offset, image_id FROM image WHERE dataset = ? AND image_id = ?"
# The index of keys leaves out empty keys, so the condition must do so too.
PLACES_BY_KEY = """
    SELECT position, shard, offset, image_id FROM image WHERE dataset = ? AND key = ? AND key <> ''
    ORDER BY position LIMIT 2
"""


def images_page(
    connection: sqlite3.Connection, pk: int, wanted: frozenset[str], page_size: int, page_token: str
) -> ImagePage:
    """Return a page of images: committed ones in their order, and then rejected ones.

    A page token is "i" for committed or "r" for rejected images, and the last position or ordinal of the page before.
    """
    table, after = page_token[:1] or "i", int(page_token[1:] or 0)
    committed = wanted & {"STORED", "UNREADABLE"}
    if table == "i" and committed:
        found = _committed(connection, pk, committed, after, page_size + 1)
        if len(found) > page_size:
            return [record for _, record in found[:page_size]], f"i{found[page_size - 1][0]}"
        if "REJECTED" not in wanted:
            return [record for _, record in found], ""
        if len(found) == page_size:
            return [record for _, record in found], "r0"
    else:
        found = []
    rejected = _rejected(connection, pk, after if table == "r" else 0, page_size - len(found) + 1)
    room = page_size - len(found)
    records = [record for _, record in found + rejected[:room]]
    return records, f"r{rejected[room - 1][0]}" if len(rejected) > room else ""


def _committed(
    connection: sqlite3.Connection, pk: int, wanted: Collection[str], after: int, limit: int
) -> list[tuple[int, ImageRecord]]:
    sql = UNREADABLE_PAGE if wanted == {"UNREADABLE"} else STORED_PAGE
    if wanted == {"STORED"}:
        sql = sql.replace("ORDER BY", "AND reason IS NULL ORDER BY")
    return [(row[0], _committed_record(row)) for row in connection.execute(sql, (pk, after, limit))]


def _committed_record(row: tuple[int, int, str, str, int, int, int, str, str, int]) -> ImageRecord:
    _, image_id, key, label, length, width, height, reason, message, unreadable = row
    return ImageRecord(
        image_id=image_id,
        key=key,
        label=label,
        status="UNREADABLE" if unreadable else "STORED",
        num_bytes=length,
        width=width,
        height=height,
        reason=reason,
        message=message,
    )


def _rejected(connection: sqlite3.Connection, pk: int, after: int, limit: int) -> list[tuple[int, ImageRecord]]:
    return [
        (ordinal, ImageRecord(image_id=0, key=key, label=label, status="REJECTED", num_bytes=num_bytes, width=0,
                              height=0, reason=reason, message=message))
        for ordinal, key, label, num_bytes, reason, message in connection.execute(REJECTED_PAGE, (pk, after, limit))
    ]  # fmt: skip


def image_at(connection: sqlite3.Connection, pk: int, position: int) -> ImageRecord:
    """Return the image at a position, from 1, which the data set in row `pk` must have."""
    return _committed_record(connection.execute(IMAGE_AT, (pk, position)).fetchone())


def find(connection: sqlite3.Connection, pk: int, ref: ImageRef) -> FoundImage:
    """Return the image with the id of `ref`, or with its key if the id is 0.

    Raises NotFound IMAGE_NOT_FOUND and FailedPrecondition KEY_AMBIGUOUS.
    """
    sql, value = (PLACES_BY_ID, ref.image_id) if ref.image_id else (PLACES_BY_KEY, ref.key)
    places = connection.execute(sql, (pk, value)).fetchall()
    name = f"id {ref.image_id:016x}" if ref.image_id else f"key {ref.key!r}"
    if not places:
        raise NotFound("IMAGE_NOT_FOUND", f"no image has the {name}", metadata={"image": name})
    if len(places) > 1:
        ids = " and ".join(f"{place[3]:016x}" for place in places)
        message = f"several images have the {name}, for example {ids}: give the id of the image instead"
        raise FailedPrecondition("KEY_AMBIGUOUS", message, metadata={"image": name})
    position, shard, offset, _ = places[0]
    record = image_at(connection, pk, position)
    return FoundImage(record=record, position=position - 1, shard=shard, offset=offset)
