"""Stored embeddings of data sets. They can be computed again, so they are never synced.

It may import what `store` may import, and of the store `array_file` alone.

- `tables`: a table of embeddings in segments.
- `cache`: how much room the tables may take, and which of them are removed first.
"""
