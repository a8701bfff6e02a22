"""The start of a store: does the database belong to the data directory, and what did a crash leave?

It may import what `store` may import, and its neighbors `array_file`, `database`, `deletions`, `durable_files`,
`embeddings`, `images`, `jobs` and `unusable`.

- `start`: open the database and recover the directory. `survey`: compare the two.
- `generation`: a counter of starts, kept in both. `set_aside`: where unknown data is moved.
- `abandoned_datasets`: remove the empty data sets of uploads that were never finished.
"""
