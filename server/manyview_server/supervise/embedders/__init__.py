"""The embedder process as a call, and the tables of embeddings that are made with it.

- `embedder`: embed images. `work_in_hand`: the requests that the process is working on.
- `crashing_requests`: requests that killed the process.
- `tables`: the embeddings of a data set, computed where they are missing. `segment_builder`: one segment of them.
"""
