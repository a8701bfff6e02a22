"""TrainJobService and MetricsService: train jobs, previews of their views, and their event logs.

It may import what `front` may import, and its neighbors `backends`, `convert`, `datasets`, `limits` and `rpc`.

- `service`: the calls on jobs. `log_tail`: the log of a job. `metrics`: the event log of a job, live and as a table.
- `subscriptions/`: the subscribers of a log, and what they share.
- `job_plans`: the configuration of a new job, which may come from another job.
- `impossible_jobs`: jobs that could only fail.
- `timed_planner`: the whole plan of a new job: `open_settings` chooses what a request leaves open among
  `combinations` and by `evaluation_interval`, and `estimates` says how long the job takes on this device.
- `previews`: which images are previewed, and with which configuration.
"""
