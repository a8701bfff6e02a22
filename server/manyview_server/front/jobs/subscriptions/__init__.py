"""The subscribers of jobs' event logs, who share what is read, converted and encoded for them.

It may import what `front` may import, and its neighbors `convert` and `rpc`.

- `subscription`: one subscriber, and what it is sent next. `event_feed`: one reader for all subscribers of a job.
- `event_pages`: encoded events. `replay_pace`: the turns of subscribers that replay.
"""
