"""Desired state to running processes. It uses no torch.

It may import `store`, `configuration`, `link`, `messages`, `system`, `counted_noun`, `embedding_rows` and `errors`.

- `process`: one worker process. `worker_output`: the end of what it prints.
- `fork_server`: forks workers from a process that has imported torch.
- `worker_call`: the start and the end of the processes behind a call.
- `restart_delay`: how long to wait before a worker that died is started again.
- `cores`: how many cores each process may use.
- `decode_watch`, `slow_images`: find decodes that take too long, and remember their images.
- `catalogue/`: what can be trained.
- `trainers/`, `embedders/`, `selectors/`, `previewers/`, `timers/`: one package per kind of worker.
"""
