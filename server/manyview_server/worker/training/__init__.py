"""The trainer: from a configuration and a snapshot to checkpoints.

It may import what `worker` may import, and its neighbors `channel`, `checkpoint_state`, `evaluation`, `images`,
`job_images`, `precision`, `step_pace` and `training_failed`.

- `trainer`: the loop. `training_step`: one step of it. `progress`: how far it is, and the heartbeat.
- `preparation`: everything before the first step. `prepared_job`: its result. `start_log`: what is logged about it.
- `resume_point`: the checkpoint to continue from. `initial_weights`: what a backbone starts with.
- `training_images`: which images are trained on, and which are held out. `dataset_following`: images that arrive later.
- `feed`: batches, in an order that depends only on the seed and the epoch.
- `reporter`: scalars, one step late. `checkpoint_saver`: checkpoints, written while the next steps run.
"""
