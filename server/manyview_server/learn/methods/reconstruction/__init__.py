"""Reconstruction methods. Each file reads like its paper. It may import what `methods` may import, and
the files of `methods`.

`mae` and `simmim` reconstruct hidden patches; `masked` holds what they share.
"""
