"""The previewer: make the views of a few images, as training makes them.

It may import what `worker` may import, and its neighbors `channel` and `images`.

- `previewer`: the process. `png`: write a PNG file.
- `hidden_patches`: the patches of a view that training hides.
"""
