"""Calls to the server: channels, retries, and streams that survive a dropped connection.

It may import the generated stubs, `_errors` and `_types`.

- `channel`: the connection, with its options, credentials, deadlines and retries.
- `rpcs`: the calls of the contract, one typed method each.
- `stream`: one streaming call. `resume`: a stream over as many calls as it takes. `paging`: listings in pages.
- `backoff`: when to try again.
- `deadline`: limits on waiting, for a process that may be suspended.
"""
