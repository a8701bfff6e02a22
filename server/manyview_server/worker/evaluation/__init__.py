"""How good the features are while a job trains.

- `knn`: nearest neighbours on held-out images, and the baselines.
- `diagnostics`: how features are spread.
"""
