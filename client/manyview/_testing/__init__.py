"""The parts of `manyview.testing.FakeServer`. It may import the generated stubs,
`_errors`, `_progress`, `_types` and `_uploads.pixels`.

- `replies`: replies about data sets, jobs, events and models. `embeddings`: embeddings, selections and neighbors.
- `errors`: statuses with details.
"""
