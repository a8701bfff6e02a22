"""Distillation methods. Each file reads like its paper.

`byol`, `simsiam` and `dino` predict one branch of a network from another.
"""
