"""The step timer: how long a job's parts would take on this device.

- `step_timer`: the process as a call. `step_times`: what was measured, kept in the data directory.
- `job_seconds`: the duration of a job, as the sum of its parts. `estimate`: the same in words.
"""
