"""The selector: work on tables of embeddings.

- `selector`: the process.
"""
