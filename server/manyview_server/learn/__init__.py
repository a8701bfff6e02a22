"""Self-supervised learning in plain PyTorch, usable in a notebook. It knows of no service.

It may import `configuration`, and nothing else of ours.

- `settings`: every parameter with its default, bounds and a sentence. `plugins`: what installed packages add by name.
- `step`: one training step. `schedules`: learning rates over time. `out_of_memory`: recognise a lack of memory.
- `encoder`: the part of a trained method that is kept. `pca`: principal components.
- `counter_random`: random numbers that are a pure function of their place.
- `views/`, `backbones/`, `modules/`, `methods/`, `losses/`, `optimizers/`, `evaluation/`, `selection/`.
"""
