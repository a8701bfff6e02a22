"""Images on their way to the server, from anything that the caller has to acknowledged batches.

It may import the generated stubs, `_transport`, `_progress`, `_types`, `_errors` and `_convert`.

- `sources`: folders, paths, bytes, PIL images and arrays as encoded images, which are read when they are needed.
- `encoded_image`: one image, ready to be sent. `labels/`: the labels that callers give.
- `folders`: the files below a folder. `shards/`: WebDataset tar files. `skipped`: the files that are passed over.
- `signatures`: the formats of images, by the first bytes of files.
- `pixels/`: arrays and PIL images as encoded images.
- `upload`: an upload over as many streams as it takes. `window`: its window and digest chain, without I/O.
- `run_report`: the report of one run of an upload.
- `handover`: the queue from the caller's thread to the sending thread. `batcher`: batches of images.
  `batch_message`: the bytes of a batch.
"""
