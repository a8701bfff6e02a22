"""Log lines that machines read."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

from manyview_server.front.json_logs import JsonFormatter


def record(**fields: object) -> logging.LogRecord:
    values = {"name": "manyview_server.x", "level": logging.WARNING, "pathname": "", "lineno": 1, "exc_info": None}
    return logging.LogRecord(msg="%s\nsecond line", args=("first",), **{**values, **fields})  # type: ignore[arg-type]


def test_a_record_is_one_line_of_json() -> None:
    line = JsonFormatter().format(record())
    assert "\n" not in line
    parsed = json.loads(line)
    assert parsed["level"] == "warning"
    assert parsed["logger"] == "manyview_server.x"
    assert parsed["message"] == "first\nsecond line"
    assert parsed["time"].endswith("+00:00")
    assert "exception" not in parsed


def test_an_exception_comes_with_its_traceback() -> None:
    try:
        raise RuntimeError("why")
    except RuntimeError:
        line = JsonFormatter().format(record(exc_info=sys.exc_info()))
    assert "RuntimeError: why" in json.loads(line)["exception"]
    assert "\n" not in line


def test_what_is_given_besides_the_message_is_in_the_line() -> None:
    given = record()
    vars(given).update(error_id="0123", train_job="job", path=Path("/somewhere"))
    parsed = json.loads(JsonFormatter().format(given))
    assert (parsed["error_id"], parsed["train_job"], parsed["path"]) == ("0123", "job", "/somewhere")
    assert parsed.keys() == {"time", "level", "logger", "message", "error_id", "train_job", "path"}
