"""The embedder process as a call, and the tables of embeddings that are made with it.

It may import what `supervise` may import, and its neighbors `cores`, `decode_watch`, `process`, `restart_delay`,
`slow_images` and `worker_call`.

- `embedder`: embed images. `embedder_process`: one process. `open_requests`: the requests that it is working on.
- `crashing_requests`: requests that killed the process.
- `tables`: the embeddings of a data set, computed where they are missing. `segment_builder`: one segment of them.
"""
