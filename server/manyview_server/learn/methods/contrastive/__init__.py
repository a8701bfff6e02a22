"""Contrastive methods. Each file reads like its paper.

`simclr`, `dcl`, `moco` and `nnclr` distinguish an image's views from other images.
"""
