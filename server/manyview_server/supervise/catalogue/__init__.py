"""What can be trained: methods, backbones and transforms, as the torch side describes them.

- `catalogue`: the description, and the check of a configuration against it.
- `catalogue_cache`: keep the description on disk. `plugin_packages`: installed packages that register plugins.
"""
