"""EmbedService: embeddings of sent images and of data sets, and what is computed from them.

It may import what `front` may import, and its neighbors `backends`, `convert`, `datasets`, `limits`, `models` and
`rpc`.

- `service`: the calls. `image_embedder`: embed the images of a request.
- `table_requests`: which stored embeddings a call asks for.
- `dataset_export`: EmbedDataset. `export_cursor`: the position of its stream. `pca_projection`: reduce its dimensions.
- `selection`, `selection_request`: SelectSamples and its arguments.
- `neighbors`: FindNeighbors and FindDuplicates. `queries`: the images or vectors that a call searches for.
"""
