"""The parts that every call passes through, whichever service it belongs to.

It may import what `front` may import, and nothing else of it.

It imports the generated stubs, `errors` and `store.idempotency_log`, and no service.

- `interceptors`: check the token, map errors to statuses, and refuse calls while the server drains.
- `status`: an error as a gRPC status with its details. `draining`: the shutdown of the server, as calls see it.
- `wire_check`, `request_limits`: how large each field of a request may be, checked before it is parsed.
- `bidi`: windows, order and in-band errors of bidirectional streams.
- `response_stream`: the response stream of one call.
- `idempotency`: a repeated request gets the first answer again.
- `resource_names`, `page_tokens`: names, ids, page sizes and page tokens in requests. `pages`: pages of a listing.
- `violation_collector`: all violations of a request, reported together.
"""
