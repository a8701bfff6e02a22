"""Ids of rows that are similar to one that does not exist, for the end of a message."""

from __future__ import annotations

import sqlite3

from manyview_server.configuration.violations import did_you_mean

MAX_IDS = 200
"""Only the newest rows are compared: the search runs on the database thread."""


def hint(connection: sqlite3.Connection, table: str, column: str, wanted: str) -> str:
    """Return "; did you mean 'ID'?", or "" if no id in this column is similar to the wanted one."""
    rows = connection.execute(f"SELECT {column} FROM {table} ORDER BY pk DESC LIMIT {MAX_IDS}")
    return did_you_mean(wanted, (row[0] for row in rows))
