"""The catalogue of methods, backbones and transforms, as the torch side describes them.

It may import what `supervise` may import, and its neighbors `process`.

- `catalogue`: the catalogue. `describe`: have a worker print it. `catalogue_cache`: keep it on disk.
- `library_backbones`: the networks of torchvision and timm, which are not in the catalogue.
- `weights_check`: whether weights fit a network. `short_questions`: ask a worker about either.
- `plugin_packages`: installed packages that register plugins.
"""
