"""The messages between the front and its workers. They are frozen dataclasses, and hold nothing but data.

Fields hold JSON values, and `blobs` holds bytes that travel unchanged beside them. Times are seconds unless the name
says otherwise. `link` carries the messages. This package imports nothing else of ours.

- `message`: the base class of all messages, and the first message of every worker.
- `training`, `embedding`, `selection`, `preview`, `timing`: the messages of one kind of worker each, in both
  directions.
"""
