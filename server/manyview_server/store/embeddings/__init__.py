"""Stored embeddings of data sets. They can be computed again, so they are never synced.

It may import what `store` may import, and nothing else of it.

- `tables`: a table of embeddings in segments. `array_file`: an array in a file that reveals damage.
- `cache`: how much room the tables may take, and which of them are removed first.
"""
