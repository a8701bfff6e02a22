"""Each query finds its rows by an index, whatever the number of images."""

from __future__ import annotations

import sqlite3

import pytest

from manyview_server.store.database.schema import MIGRATIONS
from manyview_server.store.images import batch_rows, image_rows

BY_ID, BY_KEY = "image_by_id (dataset=? AND image_id=?)", "image_by_key (dataset=? AND key=?)"
BY_POSITION = "image USING PRIMARY KEY (dataset=? AND position"


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (batch_rows.FIND_IMAGE, BY_ID),
        (batch_rows.FIND_IDS, BY_ID),
        (image_rows.PLACES_BY_ID, BY_ID),
        (image_rows.PLACES_BY_KEY, BY_KEY),
        (image_rows.IMAGE_AT, f"{BY_POSITION}=?)"),
        (image_rows.STORED_PART, f"{BY_POSITION}>? AND position<?)"),
        (image_rows.COMMITTED_PART, f"{BY_POSITION}>? AND position<?)"),
        (image_rows.UNREADABLE_PART, "unreadable USING PRIMARY KEY (dataset=? AND position>?)"),
        (image_rows.REJECTED_PART, "rejected USING PRIMARY KEY (dataset=? AND ordinal>?)"),
    ],
)
def test_rows_are_found_by_an_index(sql: str, index: str) -> None:
    connection = sqlite3.connect(":memory:")
    for script in MIGRATIONS:
        connection.executescript(script)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (1,) * sql.count("?")).fetchall()
    steps = [step for *_, step in plan]
    assert steps[0].endswith(index)
    scans = [step for step in steps if step.startswith("SCAN") and "json_each" not in step]  # but for the ids given
    assert not [*scans, *(step for step in steps if "TEMP B-TREE" in step)]
