"""The weights of a model's backbone in a file.

It may import what `_results` may import, and none of its neighbors.

- `download`: write the file. `loading_code`: Python code that loads it.
"""
