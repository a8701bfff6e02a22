"""Clustering methods. Each file reads like its paper. It may import what `methods` may import, and
the files of `methods`.

`swav` assigns views to prototypes.
"""
