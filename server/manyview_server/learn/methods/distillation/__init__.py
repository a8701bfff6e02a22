"""Distillation methods. Each file reads like its paper. It may import what `methods` may import, and
the files of `methods`.

`byol`, `simsiam` and `dino` predict one branch of a network from another.
"""
