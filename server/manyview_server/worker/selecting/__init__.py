"""The selector: select, search and fit in tables of embeddings.

It may import what `worker` may import, and its neighbors `channel`.

- `selector`: the process.
"""
