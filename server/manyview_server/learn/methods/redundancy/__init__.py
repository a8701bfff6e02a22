"""Redundancy methods. Each file reads like its paper.

`barlow_twins` and `vicreg` decorrelate features.
"""
