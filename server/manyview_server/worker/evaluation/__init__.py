"""The quality of the features while a job trains.

- `knn`: nearest neighbors on held-out images, and the baselines. `knn_log`: messages to the job's owner about them.
- `probe`: the linear probe that learns along. `diagnostics`: how the features are spread.
"""
