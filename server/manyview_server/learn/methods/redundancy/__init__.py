"""Redundancy methods. Each file reads like its paper. It may import what `methods` may import, and
the files of `methods`.

`barlow_twins` and `vicreg` decorrelate features.
"""
