"""The start of a store: does the database belong to the data directory, and what did a crash leave?

- `start`: open the database and recover the directory. `survey`: compare the two.
- `generation`: a counter of starts, kept in both. `set_aside`: where unknown data is moved.
"""
