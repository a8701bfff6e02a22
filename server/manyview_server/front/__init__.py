"""The control plane: an asyncio gRPC server. It uses no torch and decodes no images.

It may import `store`, `supervise`, `configuration`, `messages`, `link`, `image_header`, `embedding_rows`, `system`,
`config`, `errors`, `counted_noun`, `rough_duration` and the generated stubs. Nothing but the command imports it.

- `app`: start up, serve and drain, in this order. `start_progress`: where the start shows what it is doing.
  `start_warnings`: problems that the log reports at the start.
- `server`: the gRPC server and its options.
- `limits`: how much a caller may send. `backends`: what the services ask of the worker processes.
- `loop_watchdog`: report callbacks that block the event loop. `json_logs`: the format of the server's log.
- `rpc/`: what every call passes through. `convert/`: records as messages of the contract.
- `datasets/`, `jobs/`, `embeddings/`, `models/`: one package per service, with what only that service needs.
"""
