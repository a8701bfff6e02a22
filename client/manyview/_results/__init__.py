"""What comes back: embeddings, selections, events, previews and weights.

It may import `_transport`, `_uploads`, `_errors` and `_types`.

- `embeddings`, `dataset_embeddings`: rows of sent images, and of images that the server holds.
- `selection`: samples, neighbors and duplicates. `events`: the event log of a job, live and as a table.
- `preview`, `contact_sheet`: views as training makes them, and one picture of them. `export`: weights in a file.
"""
