"""Processes that make views of a few images.

- `previewer`: the previewer process as a call.
"""
