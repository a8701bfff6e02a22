"""The quality of the features while a job trains.

It may import what `worker` may import, and its neighbors `job_images`, `precision` and `preprocess`.

- `knn`: nearest neighbors on held-out images, and the baselines. `knn_log`: messages to the job's owner about them.
- `probe`: the linear probe that learns along. `diagnostics`: how the features are spread.
"""
