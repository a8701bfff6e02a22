"""The boundary between the front and its worker processes.

It imports `messages` and `errors`, and nothing else of ours.

- `frames`: a message as bytes, the limits of its size, and the errors of both ends.
- `blocking`: the worker's end of the socket pair.
- `streams`: the front's end, on the event loop.
- `fork_requests`: how the front asks the fork server for a worker.
- `decode_notes`: shared memory in which each decoding thread notes its image, so that the front can read it.
"""
