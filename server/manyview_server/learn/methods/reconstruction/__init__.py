"""Reconstruction methods. Each file reads like its paper.

`mae` and `simmim` reconstruct hidden patches; `masked` holds what they share.
"""
