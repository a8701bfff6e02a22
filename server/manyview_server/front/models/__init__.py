"""ModelService, and the models that names stand for.

- `service`: the calls. `resolution`: the checkpoint or the plain backbone that a name stands for.
"""
