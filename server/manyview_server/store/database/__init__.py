"""The database file.

It may import what `store` may import, and its neighbors `durable_files` and `unusable`.

- `database`: one connection on one thread, and transactions. `schema`: the tables, and how older files are upgraded.
- `similar_ids`: the id that somebody meant who wrote a similar one.
- `ballast`: a file that is given up when the disk is full, so that the database can still write.
"""
