"""Contrastive methods. Each file reads like its paper.

`simclr`, `dcl`, `moco` and `nnclr` tell an image's views from other images.
"""
