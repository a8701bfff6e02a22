"""Measures of how good features are, with labels and without.

It may import what `learn` may import, and its neighbors `normalize`.

- `knn`: weighted nearest neighbors. `linear_probe`: a linear classifier.
- `collapse`: measures of how features are spread. `alarms`: rules that turn such measures into warnings.
"""
