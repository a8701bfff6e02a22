"""The embedder: embed images in dynamic batches, with the models that are in use.

It may import what `worker` may import, and its neighbors `channel`, `checkpoint_state`, `images`, `precision` and
`preprocess`.

- `embedder`: the process. `scheduler`: which images share a batch. `recent_peak`: the callers that came together.
- `embed_requests`: a request and its rows.
- `model_cache`: the models in memory. `fused_resnet`: our ResNets as a CPU computes them fastest.
- `idle_heap`: memory that an idle embedder gives back.
"""
