"""The step timer: how long a job's parts would take on this device.

It may import what `supervise` may import, and its neighbors `cores`, `process` and `worker_call`.

- `step_timer`: the process as a call. `step_times`: what was measured, kept in the data directory.
- `job_seconds`: the duration of a job, as the sum of its parts. `estimate`: the same in words.
"""
