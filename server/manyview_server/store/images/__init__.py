"""Data sets and their images.

It may import what `store` may import, and its neighbors `array_file`, `database`, `deletions`, `durable_files`,
`records` and `text_limit`.

- `shards`: WebDataset tar files, the only place where image bytes are stored, and how they are read.
- `shard_writers`: the writers, one open shard for each data set.
- `shard_index`: the index file of a closed shard. `dataset_index`: the index files of a data set, kept up to date.
- `snapshots`: the first images of a data set, as a reference to their rows.
- `uploads`: uploads and the acknowledgements of their batches. `batch`: one batch. `batch_rows`: its rows.
- `ingest`: group commit of batches.
- `group_limit`: how much data a crash can leave uncommitted.
- `datasets`: data sets, listings and snapshots. `image_rows`: the rows of images in the database.
"""
