"""manyview's server.

- `__main__`: the command. `config`: the settings and their one reader. `errors`: the errors of calls.
- `early/`: the checks that come before anything slow is imported.
- `image_header/`: an image's format, size and orientation, and limits on what decoding it may cost.
- `embedding_rows`: rows as callers ask for them. `failpoints`: where tests let a worker fail.
- `counted_noun`, `rough_duration`: counts and durations in messages.
- `front/`: the gRPC server. `store/`: what must survive. `supervise/`: processes.
- `worker/`: torch. `learn/`: self-supervised learning as a library.
- `configuration/`: the settings of a job. `messages/`, `link/`: the boundary between processes.
- `system/`: what the operating system grants.
"""
