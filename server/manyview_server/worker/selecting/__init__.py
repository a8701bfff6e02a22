"""The selector: select, search and fit in tables of embeddings.

- `selector`: the process.
"""
