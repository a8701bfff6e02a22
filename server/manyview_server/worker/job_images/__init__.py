"""The images of a job: an index of all of them, and pixels that are decoded when they are needed.

It may import what `worker` may import, and its neighbors `channel` and `images`.

- `image_index`: where each image is stored, its id and its label.
- `decoded_images`: the pixels of any rows, decoded ahead of the step. `decode_threads`: the threads that decode.
- `pixel_store`: the pixels that are kept. `findings`: true sizes, and the images that cannot be read.
- `image_decoder`: decode the image of one row. `image_log`: messages to the job's owner about images.
"""
