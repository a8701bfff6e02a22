"""The parts of `manyview-server serve` that must act within a second. They need the standard library alone, because
gRPC, pydantic and numpy take seconds to import on a busy machine. So they may import `store.lock` and nothing else of
ours.

- `settings`: reads the few settings that these checks need. It leaves wrong ones to the full reader.
- `packages`: is the server installed? `paths`: do its files exist, and can its directory be made?
- `lock`: the lock of the data directory. `port`: is the address free?
- `start_line`: the line that says what a starting server does.
"""
