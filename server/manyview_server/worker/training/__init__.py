"""The trainer: from a configuration and a snapshot to checkpoints.

- `trainer`: the loop. `preparation`: everything before the first step. `start_log`: what is logged about it.
- `training_images`: which images are trained on, and which are held out. `dataset_following`: images that arrive later.
- `feed`: batches, in an order that depends only on the seed and the epoch.
- `reporter`: scalars, one step late.
- `checkpoint_saver`: when checkpoints are written. `initial_weights`: what a backbone starts with.
- `backbone_check`: whether a backbone can be built with a configuration.
"""
