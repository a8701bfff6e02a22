"""Reading and decoding images: untrusted bytes become pixels.

It may import what `worker` may import, and none of its neighbors.

- `decoder`: decode one image. `first_frame`: open it with Pillow. `damage`: what damaged files still give.
- `rgb`, `color_profile`: pixels of any kind as 8-bit RGB, and colors as sRGB.
- `guarded_decoder`, `decode_memory`: the limits that hold for every decode.
- `image_reader`: the images of a data set, read from its shards.
- `decode_size`: the side of the squares to which a job's images are decoded.
"""
