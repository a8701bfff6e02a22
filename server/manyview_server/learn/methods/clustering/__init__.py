"""Clustering methods. Each file reads like its paper.

`swav` assigns views to prototypes.
"""
