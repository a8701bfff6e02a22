"""ModelService, and the models that names stand for.

It may import what `front` may import, and its neighbors `backends`, `convert`, `limits` and `rpc`.

- `service`: the calls. `resolution`: the checkpoint or the plain backbone that a name stands for.
"""
