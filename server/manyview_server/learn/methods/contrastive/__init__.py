"""Contrastive methods. Each file reads like its paper. It may import what `methods` may import, and
the files of `methods`.

`simclr`, `dcl`, `moco` and `nnclr` distinguish an image's views from other images.
"""
