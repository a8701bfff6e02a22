"""Write the server's log to stderr: one JSON object in each line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Protocol

ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""The attributes that every record has. Others were passed as `extra`."""


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time (UTC), level, logger, message, the fields of `extra`, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in ORDINARY | line.keys()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class LogStream(Protocol):
    """A stream that the log can be written to."""

    def write(self, text: str, /) -> int: ...
    def flush(self) -> None: ...


def configure(level: str, stream: LogStream | None = None) -> None:
    """Send the log of the whole process to a stream, by default stderr."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
