"""Checks at start: do the database and the data directory belong together?

- `survey`: compare the two. `generation`: a counter of starts, kept in both.
- `set_aside`: where unknown data is moved.
"""
