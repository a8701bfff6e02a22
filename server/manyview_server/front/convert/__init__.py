"""Convert records to messages of the contract. Generated messages stop here: the layers below use frozen dataclasses.

It may import what `front` may import, and its neighbors `rpc`.

- `dataset_messages`: data sets, images and uploads.
- `embedding_messages`: models, embeddings and the options of an embedding.
- `job_messages`: train jobs, configurations and events.
"""
