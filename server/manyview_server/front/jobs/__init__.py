"""TrainJobService and MetricsService: train jobs, previews of their views, and their event logs.

- `service`: the calls on jobs. `log_tail`: the log of a job. `metrics`: replay and follow the event log of a job.
- `job_plans`: the configuration of a new job, which may come from another job.
- `impossible_jobs`: jobs that could only fail.
- `previews`: which images are previewed, and with which configuration.
"""
