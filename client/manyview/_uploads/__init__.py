"""Images in: from what the caller has to acknowledged batches.

It may import `_transport`, `_errors` and `_types`.

- `sources`: folders, paths, bytes, PIL images and arrays as encoded images, read lazily.
- `pixels`: arrays and PIL images as bytes. `shards`: WebDataset tar files.
- `upload`: an upload over as many streams as it takes. `window`: its window and digest chain, without I/O.
- `handover`: images on their way from the caller's thread to the sending thread. `batcher`: their batches.
"""
