"""Everything that must survive a crash: one data directory with one SQLite database, images and checkpoints.

One connection on one thread writes the database. The package uses neither torch nor gRPC. It may import `link`,
`messages`, `system`, `configuration`, `failpoints`, `counted_noun` and `errors`.

- `store`: open and close a data directory. `records`: the frozen dataclasses that the store returns.
- `event_payloads`: the kinds of events. `job_states`: the states of jobs. `text_limit`: the length of stored texts.
- `durable_files`: syncs of files and directories. `array_file`: arrays in a file that reveals damage.
- `lock`: one server for each data directory. `unusable`: why a server cannot start on a directory.
- `idempotency_log`: answers to requests that may come again. `deletions`: remove what a delete request asked for.
- `database/`, `startup/`, `images/`, `jobs/`, `embeddings/`: one package per kind of data.
"""
