"""The messages between the front and its workers. They are frozen dataclasses, and hold nothing but data.

Fields hold JSON values, and `blobs` holds bytes that travel beside them untouched. Times are seconds unless the name
says otherwise. `link` carries the messages. This package imports nothing else of ours.

- `message`: what every message is, and the first message of every worker.
- `training`, `embedding`, `selection`, `preview`: the messages of one kind of worker each, in both directions.
"""
