"""Self-supervised learning in plain PyTorch, usable in a notebook. Nothing here knows about the service.

It may import `configuration`, and no other package of ours.

- `settings`: every parameter with its default, bounds and a sentence. `plugins`: names that installed packages add.
- `step`: one training step. `schedules`: values that change over a training. `normalize`: unit rows, float32 at least.
- `out_of_memory`: recognise errors that mean that memory ran out.
- `encoder`: the part of a trained method that is kept. `pca`: principal components.
- `counter_random`: random numbers that are a pure function of their place.
- `views/`, `backbones/`, `modules/`, `methods/`, `losses/`, `optimizers/`, `evaluation/`, `selection/`.
"""
