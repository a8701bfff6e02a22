"""The step timer: how long a job's parts take on this device, before there is a job.

It may import what `worker` may import, and its neighbors `channel`, `images`, `precision` and `preprocess`.

- `step_timer`: the process. `step_trial`: steps and evaluations on images that are made up.
"""
