"""Judges of features, with labels and without.

- `knn`: weighted nearest neighbours. `linear_probe`: a linear classifier.
- `collapse`: measures of how features are spread. `alarms`: when such a measure is a reason to warn.
"""
