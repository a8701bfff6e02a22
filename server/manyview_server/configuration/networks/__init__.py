"""Facts that follow from the network of a job or model, for processes without torch.

It imports nothing else of ours.

- `patch_size`: the patch size that fits an image size. `preprocessing`: the preparation of an image.
"""
