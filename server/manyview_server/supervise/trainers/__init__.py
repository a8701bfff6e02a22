"""Train jobs as processes.

It may import what `supervise` may import, and its neighbors `cores`, `decode_watch`, `process`, `restart_delay` and
`timers`.

- `jobs`: bring running trainers in line with what users asked for. `attempt`: the life of one trainer.
- `start_message`: the task of an attempt. `reports`: the reports of a trainer, written to the store.
- `retention`: which checkpoints are kept, and from which one a job resumes.
- `crashing_images`: images that kill decoders. `dataset_following`: data sets that jobs follow.
"""
