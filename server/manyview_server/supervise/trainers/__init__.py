"""Train jobs as processes.

- `jobs`: bring running trainers in line with what users asked for. `attempt`: the life of one trainer.
- `reports`: what a trainer reports, written to the store. `retention`: which checkpoints are kept.
- `crashing_images`: images that kill decoders. `dataset_growth`: data sets that jobs follow.
- `snapshot_limit`: how many images a job may have.
"""
