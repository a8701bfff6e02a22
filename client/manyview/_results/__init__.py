"""Answers of the server: embeddings, selections, events, previews and weights.

It may import the generated stubs, `_transport`, `_uploads`, `_progress`, `_types`, `_errors`, `_arguments`, `_names`,
`_requests` and `_convert`.

- `embeddings`: rows of images that are sent. `dataset_embeddings`: rows of images that the server holds.
- `selection`: images that a strategy selects. `neighbors`: neighbors of queries, and groups of near-duplicates.
- `progress`: streams that report progress until the answer is ready.
- `events`: the event log of a job. `history`: its scalars as a table.
- `preview`: views as training makes them. `preview_request`: how they are asked for. `view_captions`: what made them.
- `contact_sheet`: pictures with captions on one sheet. `sheets`: those of images that were found.
- `exports/`: weights in a file.
"""
