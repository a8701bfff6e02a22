"""DatasetService: upload images, and list them.

- `service`: the calls. `upload_stream`: the state of one upload stream.
- `image_check`: check one image at the acknowledgement, without decoding it.
- `stored_bytes`: the file of a stored image, read and verified.
- `snapshot_cache`: recently used lists of the images of a data set.
"""
