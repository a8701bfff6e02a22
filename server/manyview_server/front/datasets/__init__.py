"""DatasetService: upload images, and list them.

It may import what `front` may import, and its neighbors `convert`, `limits` and `rpc`.

- `service`: the calls. `upload_stream`: the state of one upload stream.
- `received_batch`: read a batch from the bytes of its message.
- `image_check`: check one image at the acknowledgement, without decoding it.
- `stored_bytes`: the file of a stored image, read and verified.
"""
