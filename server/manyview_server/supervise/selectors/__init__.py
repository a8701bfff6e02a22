"""Processes that select, search and fit.

It may import what `supervise` may import, and its neighbors `cores`, `process` and `worker_call`.

- `selector`: the selector process as a call.
"""
