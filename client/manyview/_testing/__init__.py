"""The parts of `manyview.testing.FakeServer`: its replies.

- `replies`: jobs, data sets and events. `embeddings`: embeddings, selections and neighbors.
- `errors`: statuses with details.
"""
