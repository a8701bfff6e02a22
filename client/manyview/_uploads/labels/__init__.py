"""The labels of images, as callers give them. It may import `encoded_image`.

A label of `labels` (a file, a mapping, a sequence) comes first, then a label that an image has itself (in a shard, a
pair or a mapping), then the name of its folder.

- `label_rule`: which label each image gets. `label_text`: one value as text. `label_file`: files of labels.
"""
