"""The step timer: how long a job's parts take on this device, before there is a job.

- `step_timer`: the process. `step_trial`: steps and evaluations on images that are made up.
"""
