"""Errors that say why a server cannot start on its data directory.

StoreUnusable
├── StoreLocked       another server holds its lock
├── StoreTooNew       a newer release wrote it
├── StoreCorrupt      the database cannot be read
└── StoreMismatched   the database is not the one that belongs to the data
"""

from __future__ import annotations


class StoreUnusable(Exception):
    """The server cannot start on this data directory."""


class StoreLocked(StoreUnusable):
    """Another process holds the data directory."""


class StoreTooNew(StoreUnusable):
    """A newer release wrote the database."""


class StoreCorrupt(StoreUnusable):
    """The database cannot be read."""


class StoreMismatched(StoreUnusable):
    """The database is not the one that belongs to the data; `str()` says what was found and what to do."""
