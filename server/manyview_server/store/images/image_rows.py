"""The rows of images in the database: pages of them, and single ones by position, id or key."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from manyview_server.errors import FailedPrecondition, NotFound
from manyview_server.store.records import FoundImage, ImageRecord, ImageRef

# A page, and the token of the next page: "" after the last one.
ImagePage = tuple[list[ImageRecord], str]
# Images, each with the token behind it, and the token of the next part: "" after the last one.
ImagePart = tuple[list[tuple[str, ImageRecord]], str]

MAX_PART_ROWS = 1_000
"""The rows that one visit to the database thread reads: at most 10 ms, for which commits wait."""

COMMITTED = """
    SELECT image.position, image_id, key, coalesce(label.name, ''), length, width, height,
           coalesce(reason, ''), coalesce(message, ''), reason IS NOT NULL
    FROM image
    LEFT JOIN label ON label.dataset = image.dataset AND label.ordinal = image.label
    LEFT JOIN unreadable ON unreadable.dataset = image.dataset AND unreadable.position = image.position
"""
COMMITTED_PART = f"""
    {COMMITTED} WHERE image.dataset = ? AND image.position > ? AND image.position <= ? ORDER BY image.position LIMIT ?
"""
STORED_PART = COMMITTED_PART.replace("ORDER BY", "AND reason IS NULL ORDER BY")
IMAGE_AT = f"{COMMITTED} WHERE image.dataset = ? AND image.position = ?"
UNREADABLE_PART = """
    SELECT image.position, image_id, key, coalesce(label.name, ''), length, width, height, reason, message, 1
    FROM unreadable
    JOIN image ON image.dataset = unreadable.dataset AND image.position = unreadable.position
    LEFT JOIN label ON label.dataset = image.dataset AND label.ordinal = image.label
    WHERE unreadable.dataset = ? AND unreadable.position > ?
    ORDER BY unreadable.position LIMIT ?
"""
REJECTED_PART = """
    SELECT ordinal, key, label, num_bytes, reason, message FROM rejected
    WHERE dataset = ? AND ordinal > ? ORDER BY ordinal LIMIT ?
"""
PLACES_BY_ID = "SELECT position, shard, offset, image_id FROM image WHERE dataset = ? AND image_id = ?"
# The index of keys leaves out empty keys, so the condition must do so too. SQLite takes it only by name: otherwise it
# reads all rows of the data set, because those are in the wanted order.
PLACES_BY_KEY = """
    SELECT position, shard, offset, image_id FROM image INDEXED BY image_by_key
    WHERE dataset = ? AND key = ? AND key <> ''
    ORDER BY position LIMIT 2
"""


def images_part(
    connection: sqlite3.Connection, pk: int, wanted: Collection[str], most: int, page_token: str
) -> ImagePart:
    """Return some images: committed ones in their order, and then rejected ones. Not more than `most`, and perhaps none
    although more follow.

    A page token is "i" for committed or "r" for rejected images, and the last position or ordinal of the part before.
    """
    table, after = page_token[:1] or "i", int(page_token[1:] or 0)
    most = min(most, MAX_PART_ROWS)
    if table == "i" and (committed := frozenset(wanted) & {"STORED", "UNREADABLE"}):
        found, end = _committed(connection, pk, committed, after, most)
        if end is not None:
            return found, f"i{end}"
        return found, "r0" if "REJECTED" in wanted else ""
    if "REJECTED" not in wanted:
        return [], ""
    found = _rejected(connection, pk, after if table == "r" else 0, most)
    return found, found[-1][0] if len(found) == most else ""


def _committed(
    connection: sqlite3.Connection, pk: int, wanted: Collection[str], after: int, most: int
) -> tuple[list[tuple[str, ImageRecord]], int | None]:
    """Return images behind a position, and the position up to which there are no others, or None at the end."""
    if wanted == {"UNREADABLE"}:
        rows = connection.execute(UNREADABLE_PART, (pk, after, most)).fetchall()
        end = rows[-1][0] if len(rows) == most else None
    else:
        # The range limits how many images with another status are passed over.
        places = (pk, after, after + MAX_PART_ROWS, most)
        rows = connection.execute(STORED_PART if wanted == {"STORED"} else COMMITTED_PART, places).fetchall()
        end = rows[-1][0] if len(rows) == most else after + MAX_PART_ROWS
        (num_images,) = connection.execute("SELECT num_images FROM dataset WHERE pk = ?", (pk,)).fetchone()
        end = end if end < num_images else None
    return [(f"i{row[0]}", _committed_record(row)) for row in rows], end


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


def _rejected(connection: sqlite3.Connection, pk: int, after: int, most: int) -> list[tuple[str, ImageRecord]]:
    return [
        (f"r{ordinal}", ImageRecord(image_id=0, key=key, label=label, status="REJECTED", num_bytes=num_bytes, width=0,
                              height=0, reason=reason, message=message))
        for ordinal, key, label, num_bytes, reason, message in connection.execute(REJECTED_PART, (pk, after, most))
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
