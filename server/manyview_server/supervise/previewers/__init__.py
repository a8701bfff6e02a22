"""Processes that make views of a few images.

It may import what `supervise` may import, and its neighbors `decode_watch`, `process`, `slow_images` and `worker_call`.

- `previewer`: the previewer process as a call.
"""
