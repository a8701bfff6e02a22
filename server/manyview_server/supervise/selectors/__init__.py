"""Processes that select, search and fit.

- `selector`: the selector process as a call.
"""
