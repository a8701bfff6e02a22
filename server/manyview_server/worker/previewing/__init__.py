"""The previewer: make the views of a few images, as training makes them.

- `previewer`: the process. `png`: write a PNG file.
"""
