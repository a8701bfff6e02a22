"""Train jobs, their event logs and their checkpoints.

- `jobs`: train jobs. `job_rows`: their rows. `job_verbs`: the graph of their states, and what a user may ask for.
- `events`: the event log of a job. `event_rows`: its rows.
- `checkpoints`: directories on disk, complete or absent. `checkpoint_rows`: their registry.
"""
