"""The torch side: one process per job, embedder, selector, previewer or step timer. It uses no gRPC and no asyncio.

It may import `learn`, `configuration`, `link`, `messages`, `image_header`, `embedding_rows`, `failpoints`, `system`,
`counted_noun`, `rough_duration`, `errors`, `store.images.shards`, `store.images.snapshots`, `store.jobs.checkpoints`,
`store.jobs.model_card` and `store.embeddings`.
It never imports the database, `front` or `supervise`.

- `__main__`: the entry of every worker. `channel`: its link to the front. `versions`: what it runs on.
- `fork_server`: a process that has imported torch, and forks workers.
- `describe`: the description of all that can be trained, as JSON.
- `exact_float32`: the precision of float32 products. `precision`: which number format is the fastest.
- `preprocess`: from pixels to the input of a network. `checkpoint_state`: what is in a checkpoint.
- `step_pace`: whether a job is slower than planned. `training_failed`: why a training run cannot continue.
- `training/`, `evaluation/`, `embedding/`, `selecting/`, `previewing/`, `timing/`: one package per kind of work.
- `images/`: from untrusted bytes to pixels. `job_images/`: the images of a job, decoded when they are needed.
"""
