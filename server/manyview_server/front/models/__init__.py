"""ModelService, and the meaning of a model's name.

- `service`: the calls. `resolution`: the checkpoint or the plain backbone that a name stands for.
"""
