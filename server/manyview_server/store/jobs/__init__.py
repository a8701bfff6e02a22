"""Train jobs, their event logs and their checkpoints.

It may import what `store` may import, and its neighbors `database`, `deletions`, `durable_files`, `embeddings`,
`event_payloads`, `images`, `job_states`, `records` and `text_limit`.

- `jobs`: train jobs. `job_rows`: their rows. `job_verbs`: what a user may ask for.
- `events`: the event logs. `event_rows`: their rows. `event_tails`: the newest events, in memory.
- `checkpoint_store`: the registered checkpoints. `checkpoint_rows`: their rows.
- `checkpoints`: a checkpoint on disk, complete or absent. `model_card`: the description of its model.
"""
