"""From untrusted bytes to pixels.

- `decoder`: decode one image. `guarded_decoder`, `decode_memory`: the limits that hold for every decode.
- `cache`: images that are decoded once. `scratch`: memory in a file, for images that do not fit.
- `image_reader`: the images of a data set, read from its shards.
"""
