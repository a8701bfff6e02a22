"""How large a job's configuration may be, as it is sent and as it is resolved.

Resolving costs up to a tenth of a millisecond for each value, so these numbers bound what one request can cost. They
are far above what any recipe needs: a complete configuration has about 100 values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manyview_server.errors import InvalidArgument, Violation

Json = Any

MAX_BYTES = 128 << 10
"""The most bytes of the message that holds it."""
MAX_VALUES = 4_096
"""The most numbers, texts, lists and objects together."""
MAX_DEPTH = 16
"""The most levels of lists and objects."""
MAX_ITEMS = 256
"""The most items of one list."""
MAX_KEYS = 256
"""The most keys of one object."""
MAX_KEY_BYTES = 256
MAX_TEXT_BYTES = 4_096

MAX_RESOLVED_VALUES = 8_192
MAX_RESOLVED_TEXT_BYTES = 256 << 10
"""The same limits once short forms are spelled out. The bytes are those of texts and keys together."""


def refuse_large(configuration: Json, field: str) -> None:
    """Raise InvalidArgument if a configuration without short forms has too many values, or too much text.

    A value that is given once for all pipelines counts once for each pipeline. The count stops at the limit.
    """
    waiting, num_values, num_bytes = [configuration], 0, 0
    while waiting:
        value = waiting.pop()
        num_values += 1
        if isinstance(value, str):
            num_bytes += len(value.encode())
        elif isinstance(value, Mapping):
            num_bytes += sum(len(key.encode()) for key in value)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)
        if num_values > MAX_RESOLVED_VALUES:
            _refuse(field, MAX_RESOLVED_VALUES, "values")
        if num_bytes > MAX_RESOLVED_TEXT_BYTES:
            _refuse(field, MAX_RESOLVED_TEXT_BYTES, "bytes of texts and keys")


def _refuse(field: str, most: int, what: str) -> None:
    text = f"has more than {most:,} {what} once its short forms are spelled out; at most {most:,} are allowed"
    raise InvalidArgument.of(Violation(field=field, description=text))
