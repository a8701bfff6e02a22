"""Strategies that select images to look at, label or train on by their embeddings, and the search for near-duplicates.

It may import what `learn` may import, and its neighbors `normalize`.

    rows = unit_rows(embeddings)                  # distances from 0 to 2
    chosen = coreset(rows, 1000, seed=0).rows
    more = coreset(rows, 500, seed=0, chosen=chosen).rows

Everything runs on the device of its input, and needs a bounded amount of further memory. The same input and seed give
the same result: ties go to the lower row. Rows must be finite.

- `farthest`: coreset and minimum distance. `density`: typicality. `similarity`: likeness to queries.
- `sampling`: random.
- `balance`: how many of each class. `duplicates`: near-duplicates.
- `distances`: distances in blocks. `selection`: the result of a strategy. `arguments`: checks of its arguments.
"""

from manyview_server.learn.selection.balance import balanced, equal_budgets, proportional_budgets
from manyview_server.learn.selection.density import typicality
from manyview_server.learn.selection.distances import nearest, unit_rows
from manyview_server.learn.selection.duplicates import near_duplicates
from manyview_server.learn.selection.farthest import coreset, minimum_distance
from manyview_server.learn.selection.sampling import random
from manyview_server.learn.selection.selection import Selection
from manyview_server.learn.selection.similarity import similarity

__all__ = [
    "Selection",
    "balanced",
    "coreset",
    "equal_budgets",
    "minimum_distance",
    "near_duplicates",
    "nearest",
    "proportional_budgets",
    "random",
    "similarity",
    "typicality",
    "unit_rows",
]
